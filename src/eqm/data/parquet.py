"""Tables with a column of encoded pictures: parquet, and what Hugging Face `datasets` saves."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch

from eqm.data.caption_files import WORDS, Captions, sentences
from eqm.data.classes import by_name, contradict, count_classes
from eqm.data.config import DataConfig
from eqm.data.picture_files import PictureFiles
from eqm.data.source import digest
from eqm.data.splits import kept_shards, missing_split, split_note
from eqm.files import printable
from eqm.naming import said
from eqm.reading import check_unpacked, inside, open_regular
from eqm.schema import read_json

_PICTURES = ("image", "img", "picture", "png", "jpg", "jpeg", "webp")
"""Names of columns of pictures."""
_LABELS = ("label", "labels", "cls", "class", "fine_label")
"""Names of columns of labels."""


def table(
    path: Path, paths: Sequence[Path], config: DataConfig, *, name: str = "", asked: bool = False
) -> PictureFiles:
    """The pictures of tables: parquet files, or the files of a folder that `datasets` saved to disk.

    `path` names them together. They are those of `config.split`, of which `asked` is that of
    `kept_shards`. Saved tables are mapped into memory; parquet is read as a whole, still encoded. The
    labels are those of the column `label`, of another such column, or of `config.labels_from`:
    numbers or words. Raises ValueError without pyarrow, and when there is no column of pictures or a
    file is damaged.
    """
    paths, notes, _ = kept_shards(str(path), paths, config.split, asked=asked)
    folders = sorted({str(file.parent) for file in paths})
    if len(folders) > 1 and config.split != "all":
        raise ValueError(f"{path} holds tables in {said(folders)}: give the path of one folder")
    rows = _rows(path, paths)
    features = _features(rows.schema)
    column, more = _picture_column(path, rows, features)
    labels: torch.Tensor | None = None
    classes: tuple[str, ...] = ()
    if (config.labels and not config.captions) or config.classes:
        labels, classes, also = _labels(path, rows, features, column, config.labels_from)
        more += also
    captions = None
    if config.captions:
        captions, also = _captions(path, rows, column, config.captions)
        more += also
    if not len(rows):
        raise ValueError(f"no pictures in {path}: the table has no rows: give another one")
    sizes = [(file.name, file.stat().st_size) for file in paths]
    return PictureFiles(
        name or (path.resolve().stem if path.is_file() else path.resolve().name),
        [f"row {row}" for row in range(len(rows))],
        labels,
        classes,
        digest(*sizes, len(rows), column, labels),
        _Cells(path, paths, column, config.outside, rows.column(column)),
        notes=notes + more,
        captions=captions,
    )


def _rows(path: Path, paths: Sequence[Path]) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ValueError("tables need pyarrow: pip install 'eqm[data]'") from error
    try:
        mapped = paths[0].suffix == ".arrow"
        return pa.concat_tables([_mapped(file) if mapped else _unpacked(file) for file in paths])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read ({reason}): its tables must be whole and alike"
        ) from error


def _unpacked(path: Path) -> Any:
    """The table of a parquet file. Raises ValueError where it would unpack to far more than its size."""
    from pyarrow.parquet import ParquetFile

    with open_regular(path) as file, ParquetFile(file) as parts:
        about, size = parts.metadata, path.stat().st_size
        groups = map(about.row_group, range(about.num_row_groups))
        check_unpacked(str(path), size, sum(group.total_byte_size for group in groups))
        # Equal cells may be stored once; then only a few of them show how large all are.
        first = next(parts.iter_batches(batch_size=16), None)
        if first is not None and len(first):
            check_unpacked(str(path), size, first.nbytes // len(first) * about.num_rows)
        return parts.read()


class _Cells:
    """Opens the picture in a cell by its number; pickled without the table, which is read again."""

    def __init__(
        self, path: Path, paths: Sequence[Path], column: str, outside: bool, cells: Any = None
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


def hub_table(name: str, config: DataConfig) -> PictureFiles:
    """The pictures of `OWNER/NAME`, or `OWNER/NAME:PART`, on the Hugging Face hub.

    By default the part is `config.split`.

    The hub keeps every public data set as parquet. It is downloaded once, to the hub's cache.
    Raises ValueError where there is no such data set or part.
    """
    from huggingface_hub import snapshot_download

    owner_and_name, _, part = name.partition(":")
    part = part or config.split
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
    files = sorted(found[0].glob("*.parquet"))
    whole = replace(config, split="all")  # it was chosen by its folder
    return table(found[0], files, whole, name=owner_and_name.rpartition("/")[2])


def saved(path: Path, split: str) -> tuple[list[Path], tuple[str, ...]]:
    """The tables in order, where `datasets` saved them to the folder `path`, and notes; none elsewhere.

    Raises ValueError for a part that is not there, and for a damaged list."""
    notes: tuple[str, ...] = ()
    if (path / "dataset_dict.json").is_file():
        parts = sorted(part.parent.name for part in path.glob("*/state.json"))
        if split not in parts:
            raise ValueError(missing_split(str(path), split, said(parts)))
        others = said([part for part in parts if part != split])
        if others:
            notes = (split_note(str(path), split, others),)
        path = path / split
    if not (path / "state.json").is_file():
        return [], ()
    listed = read_json(path / "state.json", advice="save the data set again")
    if not isinstance(listed, dict) or "_data_files" not in listed:  # another program wrote it
        return [], ()
    try:
        return [inside(path, entry["filename"]) for entry in listed["_data_files"]], notes
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path / 'state.json'} is damaged ({error}): save the data set again"
        ) from error


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


def _picture_column(path: Path, rows: Any, features: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The column of pictures, and a note if there are more."""
    kinds = {name: str(rows.schema.field(name).type) for name in rows.column_names}

    def holds_pictures(name: str) -> bool:
        if _is_a("Image", features.get(name)):
            return True
        kind = kinds[name]
        return name.lower() in _PICTURES and (
            bool(re.match(r"struct<([^<>]*, )?bytes: ", kind)) or kind in ("binary", "large_binary")
        )

    columns = [name for name in rows.column_names if holds_pictures(name)]
    if not columns:
        raise ValueError(
            f"{path} has no column of encoded pictures, `image` or `img`: "
            f"it has {said([f'{name} ({kind})' for name, kind in kinds.items()], most=20)}: rename the one to read to "
            "`image`, or save the pictures in it as encoded bytes"
        )
    column = next(iter(_called(_PICTURES, columns)), columns[0])
    if len(columns) == 1:
        return column, ()
    if column.lower() not in _PICTURES:
        raise ValueError(
            f"{path} has several columns of pictures, {said(columns)}: rename the one to read to `image`"
        )
    others = said([name for name in columns if name != column])
    return column, (f"{path}: the pictures are those of the column {column}, not of {others}",)


def _labels(
    path: Path, rows: Any, features: dict[str, Any], pictures: str, asked: str
) -> tuple[torch.Tensor | None, tuple[str, ...], tuple[str, ...]]:
    """The labels, the names of the classes, and notes."""
    others = [name for name in rows.column_names if name != pictures]
    if asked:
        if asked not in others:
            raise ValueError(
                f"{path} has no column {printable(asked)}, only {said(others, most=20)}: set data.labels_from to one"
            )
        return *_of_column(path, rows, features, asked), ()
    noted = [name for name in others if _is_a("ClassLabel", features.get(name))]
    known = _called(_LABELS, others)
    found = list(dict.fromkeys([*known, *noted]))
    if not found:
        hint = f"{path} has no column `label`, only {said(others)}: if one holds classes, set data.labels_from"
        return None, (), (hint,) if others else ()
    first, *more = found
    labels, names = _of_column(path, rows, features, first)
    notes = () if first == "label" else (f"{path}: the labels are those of the column {first}",)
    for name in more:
        other, _ = _of_column(path, rows, features, name)
        if contradict(labels.tolist(), other.tolist()):
            if first == "fine_label":  # as CIFAR-100 has it
                notes = (
                    f"{path}: the labels are those of the column {first}, not of {said(more)}",
                )
                break
            raise ValueError(
                f"{path} has labels in the columns {said(found)}, which differ: set data.labels_from to one"
            )
    return labels, names, notes


def _captions(path: Path, rows: Any, pictures: str, asked: str) -> tuple[Captions, tuple[str, ...]]:
    """The sentences of each row, of the column that is asked for or the only one that may hold some."""
    others = [name for name in rows.column_names if name != pictures]
    if asked != "auto" and asked not in others:
        raise ValueError(
            f"{path} has no column {printable(asked)}, only {said(others, most=20)}: set data.captions to one"
        )
    kinds = {name: str(rows.schema.field(name).type) for name in others}
    texts = [name for name in others if "string" in kinds[name]]
    known = [asked] if asked != "auto" else _called(WORDS, texts)
    if not known:
        raise ValueError(
            f"{path} has no column `text` or `caption`, only {said(others, most=20)}: set data.captions to one"
        )
    found = [tuple(map(sentences, rows.column(name).to_pylist())) for name in known]
    for name, other in zip(known[1:], found[1:], strict=True):
        if other != found[0]:
            raise ValueError(
                f"{path} has captions in the columns {known[0]} and {name}, which differ: set data.captions to one"
            )
    if not any(found[0]):
        raise ValueError(
            f"{path}: column {printable(known[0])} holds no text: set another data.captions"
        )
    return found[0], (f"{path}: the captions are those of the column {known[0]}",)


def _called(words: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns with one of these names in any case, in the order of the names."""
    return [name for word in words for name in columns if name.lower() == word]


def _is_a(kind: str, feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == kind


def _of_column(
    path: Path, rows: Any, features: dict[str, Any], name: str
) -> tuple[torch.Tensor, tuple[str, ...]]:
    values = rows.column(name).to_pylist()
    if None in values:
        raise ValueError(f"{path}: some cells of column {name} are empty: fill or remove them")
    if all(isinstance(value, str) for value in values):
        return by_name(values)
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
            f"{path}: labels must be {expected}; got {low}..{high}: parts without labels have -1, so "
            "turn data.labels off for them"
        )
    count = count_classes(str(path), values) if values else 0
    return torch.tensor(values), names or tuple(map(str, range(count)))
