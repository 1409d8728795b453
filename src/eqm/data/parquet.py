"""Tables with a column of encoded pictures: parquet, and what Hugging Face `datasets` saves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, BinaryIO

import torch

from eqm.data.archives import PictureFiles
from eqm.data.images import count_classes
from eqm.data.source import digest
from eqm.reading import inside, open_regular


def table(path: Path, *, name: str = "", outside: bool = False) -> PictureFiles:
    """The pictures of a parquet file, a folder of them, or a folder that `datasets` saved to disk.

    A saved folder with several parts gives its `train`; the path of another part may be given. It
    is mapped into memory; parquet is read as a whole, still encoded. The labels are those of the
    column `label`, numbers or words. Raises ValueError without pyarrow, and when there is no column
    of pictures or a file is damaged.
    """
    paths = files_of(path)
    rows = _rows(path, paths)
    features = _features(rows.schema)
    column = _picture_column(path, rows, features)
    labels, classes = _labels(path, rows, features)
    if not len(rows):
        raise ValueError(f"no pictures in {path}: the table has no rows")
    sizes = [(file.name, file.stat().st_size) for file in paths]
    return PictureFiles(
        name or (path.resolve().stem if path.is_file() else path.resolve().name),
        [f"row {row}" for row in range(len(rows))],
        labels,
        classes,
        digest(*sizes, len(rows), column, labels),
        _Cells(path, paths, column, outside, rows.column(column)),
    )


def _rows(path: Path, paths: list[Path]) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError("tables need pyarrow: pip install 'eqm[data]'") from error
    try:
        mapped = paths[0].suffix == ".arrow"
        return pa.concat_tables(
            [_mapped(file) if mapped else pq.read_table(file) for file in paths]
        )
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read ({reason}): its tables must be whole and alike"
        ) from error


class _Cells:
    """Opens the picture in a cell by its number; pickled without the table, which is read again."""

    def __init__(
        self, path: Path, paths: list[Path], column: str, outside: bool, cells: Any = None
    ) -> None:
        self.of = path, paths, column, outside
        self.cells = _rows(path, paths).column(column) if cells is None else cells

    def __reduce__(self) -> tuple[Any, ...]:
        return _Cells, self.of

    def __call__(self, index: int) -> BinaryIO:
        cell = self.cells[index].as_py()
        if isinstance(cell, dict):
            if cell.get("bytes") is None and cell.get("path"):
                folder, outside = self.of[1][0].parent, self.of[3]
                return open_regular(inside(folder, cell["path"], outside=outside))
            cell = cell.get("bytes")
        if cell is None:
            raise ValueError("the cell is empty")
        return io.BytesIO(cell)


def hub_table(name: str) -> PictureFiles:
    """The pictures of `OWNER/NAME`, or `OWNER/NAME:PART`, on the Hugging Face hub; `train` by default.

    The hub keeps every public data set as parquet. It is downloaded once, to the hub's cache.
    Raises ValueError where there is no such data set or part.
    """
    from huggingface_hub import snapshot_download

    owner_and_name, _, part = name.partition(":")
    part = part or "train"
    try:
        folder = Path(
            snapshot_download(
                owner_and_name,
                repo_type="dataset",
                revision="refs/convert/parquet",
                allow_patterns=[f"*/{part}/*.parquet"],
            )
        )
    except Exception as error:  # the hub's own, the network's, and those of both their packages
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"cannot fetch {owner_and_name} from the hub ({reason}): check its name and the network"
        ) from error
    found = sorted(file for file in folder.glob(f"*/{part}") if any(file.glob("*.parquet")))
    if len(found) != 1:
        which = ", ".join(file.parent.name for file in found)
        raise ValueError(
            f"{owner_and_name} has {len(found)} tables called {part}"
            + (f" ({which}): give the path of one, {found[0]}" if found else ": name another part")
        )
    return table(found[0], name=owner_and_name.rpartition("/")[2])


def files_of(path: Path) -> list[Path]:
    """The tables at `path`, in order; none where it is no table."""
    if path.is_file():
        return [path] if path.suffix in (".parquet", ".arrow") else []
    if (path / "dataset_dict.json").is_file():
        path = path / "train"
    if (path / "state.json").is_file():
        try:
            listed = json.loads((path / "state.json").read_text(encoding="utf-8"))
            if "_data_files" in listed:  # else another program wrote it
                return [inside(path, entry["filename"]) for entry in listed["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path / 'state.json'} is damaged ({error}): save the data set again"
            ) from error
    return sorted(path.glob("*.parquet"))


def _mapped(path: Path) -> Any:
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source).read_all()


def _features(schema: Any) -> dict[str, Any]:
    """The types that `datasets` notes of columns, by name."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])
        return dict(noted["info"]["features"])
    except (KeyError, ValueError, TypeError):
        return {}


def _picture_column(path: Path, rows: Any, features: dict[str, Any]) -> str:
    for name in rows.column_names:
        feature = features.get(name)
        if isinstance(feature, dict) and feature.get("_type") == "Image":
            return name
    for name in ("image", "img", "picture", "png", "jpg", "jpeg", "webp"):
        if name in rows.column_names:
            kind = str(rows.schema.field(name).type)
            if kind.startswith("struct<bytes") or kind in ("binary", "large_binary"):
                return name
    raise ValueError(
        f"{path} has no column of encoded pictures, `image` or `img`: "
        f"it has {', '.join(rows.column_names)}"
    )


def _labels(
    path: Path, rows: Any, features: dict[str, Any]
) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    for name in ("label", "labels", "cls", "class", "fine_label"):
        if name not in rows.column_names:
            continue
        values = rows.column(name).to_pylist()
        if None in values:
            raise ValueError(f"{path}: some cells of column {name} are empty: fill or remove them")
        if all(isinstance(value, str) for value in values):
            words = tuple(sorted(set(values)))
            place = {word: number for number, word in enumerate(words)}
            return torch.tensor([place[value] for value in values]), words
        if not all(type(value) is int for value in values):
            raise ValueError(
                f"{path}: column {name} must hold whole numbers or words; "
                f"it holds {rows.schema.field(name).type}"
            )
        noted = features.get(name)
        names = tuple(noted.get("names") or ()) if isinstance(noted, dict) else ()
        low, high = min(values, default=0), max(values, default=-1)
        if low < 0 or (names and high >= len(names)):
            expected = f"in 0..{len(names) - 1}" if names else "0 or more"
            raise ValueError(
                f"{path}: labels must be {expected}; got {low}..{high}: "
                "parts without labels have -1"
            )
        count = count_classes(str(path), values) if values else 0
        return torch.tensor(values), names or tuple(map(str, range(count)))
    return None, ()
