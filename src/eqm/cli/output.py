"""What commands write and print: sheets, folders, arrays and animations of pictures, and settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from math import pi
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from unicodedata import category

from eqm.cli.options import Reading, Sheet
from eqm.files import KINDS, check_file, check_folder, is_of_kind, printable
from eqm.registry import names
from eqm.train.config import TrainConfig

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FOLDER = ""
"""A folder of pictures has no ending."""
LONGEST = 200
"""Bytes of the name of a file; most file systems take 255."""
TURNS = 60
"""Frames in which points turn once."""
STILL = (".png", ".npz", FOLDER)
MOVING = (*STILL, ".gif", ".mp4")
ANY = (*MOVING, ".wav")
FILES = (*filter(None, ANY), ".csv", ".json", ".md", ".safetensors")
"""Endings of outputs that are files."""


def show_settings(settings: Mapping[str, object]) -> None:
    """Prints one setting a line, names to the left."""
    width = max(map(len, settings))
    for name, value in settings.items():
        print(f"{printable(name):<{width}}  {'none' if value in ('', None) else printable(value)}")


OUTPUTS = ("output", "animate", "maps", "save_reference")
"""Options of commands that name what is written."""
MODELS = (
    "model",
    "models",
    "run",
    "vae",
    "features",
    "samples",
    "compare",
    "folder",
    "config.init_from",
)
"""Options of commands that name models that are read, and other things."""
DATA = (
    *("pictures", "images", "normal", "mask", "masks", "path", "data", "reference", "training"),
    *(
        "good",
        "table",
        "labels_from",
        "config.data.path",
        "config.data.labels_from",
        "config.data.captions",
    ),
)
"""Options of commands that name data that are read."""
MODEL_FILES = (
    *("config.json", "model.safetensors", "README.md", "detector.json", "detector.safetensors"),
    *(
        "manifest.json",
        "parts.json",
        "columns.json",
        "outliers.json",
        "outliers.safetensors",
        "report.html",
        "eqm.json",
        "log.jsonl",
        "checkpoints",
        "best",
        "averages",
        "pictures",
        "tensorboard",
    ),
)
"""Names that eqm itself uses in the folder of a model or a run."""


def check_options(options: Mapping[str, object]) -> None:
    """Raises ValueError where a command with these `options` would write over what it reads, or write two
    results to one place or to a name with control characters."""
    if isinstance(config := options.get("config"), TrainConfig):
        options = {**options, **{f"config.{k}": value for k, value in config.flat().items()}}
    if isinstance(reading := options.get("reading"), Reading):
        options = {**options, **dict(reading.changes)}
    models = [text for name in MODELS for text in _texts(options.get(name))]
    data = [text for name in DATA for text in _texts(options.get(name))]
    written = [(name, path) for name in OUTPUTS for path in _texts(options.get(name))]
    for number, (name, path) in enumerate(written):
        if any(category(letter) == "Cc" for letter in path):
            raise ValueError(f"{name} must have no control characters; got {printable(path)}")
        check_apart(Path(path), data, models, name=name)
        _check_not_of_model(Path(path), name)
        for other, place in written[:number]:
            if _is_same(Path(path), Path(place)):
                raise ValueError(f"{name} and {other} are the same, {path}: choose two names")
        for other, place in written:
            if Path(place).suffix in FILES and _inside(Path(path), Path(place)):
                raise ValueError(
                    f"{name} must not lie in {other}, the file {place}; got {path}: choose another place"
                )


def _check_not_of_model(output: Path, name: str) -> None:
    """Raises ValueError where `output` is a file of a model or a run, or lies in a folder of it."""
    for folder in Path(os.path.realpath(output)).parents:
        inside = _inside(output, folder)
        if inside[0] in MODEL_FILES and any(is_of_kind(folder, kind) for kind in KINDS):
            raise ValueError(
                f"{name} must not be the place of a file of the model in {folder}; got {output}: choose "
                "another place"
            )


def check_apart(
    output: Path, data: Sequence[str], models: Sequence[str] = (), *, name: str = "output"
) -> None:
    """Raises ValueError where writing `output`, the option `name`, would change what is read.

    It must not be a file or folder that is read, lie in a folder that is read, link to a file in it, or be a
    folder with something that is read. The folder of a model takes results of other names than MODEL_FILES.
    """
    data = [text for text in data if text.partition(":")[0] not in (*names("source"), "hf")]
    for text, place in [(one, place) for one in (*data, *models) for place in _places(one)]:
        fault = ""
        if _is_same(output, place):
            fault = f"{output} is read"
        elif os.path.isdir(place):  # noqa: PTH112
            inside = _inside(output, place)
            if text in models and any(is_of_kind(place, kind) for kind in KINDS):
                if inside and inside[0] in MODEL_FILES:
                    fault = f"{output} is the place of a file of the model in {place}"
            elif inside:
                fault = f"{output} lies in the folder {place}, which is read"
            elif _links_into(output, place):
                fault = f"{output} is a link to a file in {place}, which is read"
        if os.path.isdir(output) and _inside(place, output):  # noqa: PTH112
            fault = f"{output} is a folder with {place}, which is read"
        if fault:
            raise ValueError(f"{name} must not change what is read; {fault}: choose another place")


def _texts(value: object) -> list[str]:
    if isinstance(value, (str, Path)):
        return [str(value)]
    return [str(part) for part in value] if isinstance(value, (tuple, list)) else []


def _places(text: str) -> list[Path]:
    """The files and folders that an argument names, also as NAME=FILE, KIND:FILE, FILE:0-7 or a pattern."""
    candidates = [text, text.partition("=")[2], text.partition(":")[2], text.rpartition(":")[0]]
    for candidate in filter(None, candidates):
        with suppress(OSError, ValueError):
            if Path(candidate).exists():
                return [Path(candidate)]
    if set(text) & set("*?[{"):
        from eqm.data.patterns import expanded

        with suppress(OSError, ValueError):
            return expanded(text)
    return []


def _is_same(one: Path, other: Path) -> bool:
    with suppress(OSError, ValueError):
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


def _inside(path: Path, folder: Path) -> tuple[str, ...]:
    """The names that lead from the folder to the path; none if it lies elsewhere."""
    path, folder = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


def _links_into(path: Path, folder: Path) -> bool:
    """Whether the file at `path` is, by a link, also in `folder`."""
    if not os.path.isfile(path):  # noqa: PTH113
        return False
    wanted = path.stat()
    for root, *_ in os.walk(folder):
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.is_symlink() or entry.inode() == wanted.st_ino:
                    with suppress(OSError):
                        if os.path.samestat(entry.stat(), wanted):
                            return True
    return False


def check_output(output: Path, endings: Sequence[str], *, name: str = "output") -> None:
    """Raises ValueError unless `output`, the option `name`, can be written: it must end in one of `endings`
    and not be a folder; or, for FOLDER, be a new or empty folder.

    Raises OSError for a device, a pipe, a read-only file and a name that is too long."""
    if FOLDER in endings and ending_of(output) == FOLDER:
        return check_folder(output, name=name)
    if output.suffix not in endings:
        *some, last = filter(None, endings)
        also = ", or have no ending for a folder" * (FOLDER in endings)
        raise ValueError(f"{name} must end in {', '.join(some)} or {last}{also}; got {output}")
    if os.path.isdir(output):  # noqa: PTH112
        raise ValueError(f"{name} must be a file; {output} is a folder: choose another name")
    check_file(output)
    if output.suffix == ".mp4":
        from eqm.pictures import check_mp4_writer

        check_mp4_writer()


def write_images(
    images: Tensor | Iterable[Tensor],
    output: Path,
    *,
    columns: int,
    sheet: Sheet = Sheet(),
    shown: Tensor | None = None,
    rows: Sequence[str] = (),
    titles: Sequence[str] = (),
    names: Sequence[str] = (),
) -> None:
    """Returns nothing; writes images (N, C, H, W) in -1..1, whole or in parts, as `output` ends.

    .png: a sheet of `shown` (M, C, H, W), by default of the images, with the captions `rows` to the left
    and `titles` above where `sheet` asks for captions. .npz: the array `arr_0` (N, H, W, C), uint8. .gif and
    .mp4: one image after the other. A folder: a file NAME.png for each of `names`, or by number.

    Raises ValueError for other endings; `check_output` does so before the work.
    """
    import numpy as np
    import torch

    from eqm.files import new_folder, replacing
    from eqm.pictures import animate, grid, picture, to_uint8

    check_output(output, MOVING)
    if sheet.scale < 0:
        raise ValueError(f"scale must be 1 or more, or 0 for automatic; got {sheet.scale}")
    parts = [images] if isinstance(images, torch.Tensor) else images
    one_by_one = (image for part in parts for image in part)
    match ending_of(output):
        case ".npz":
            array = np.concatenate([to_uint8(part) for part in parts])
            with replacing(output) as path, path.open("wb") as file:
                np.savez(file, arr_0=array)
        case ".png":
            shown = torch.cat(list(parts)) if shown is None else shown
            scale = sheet.scale or max(1, 56 // shown.shape[-1])
            drawn = grid(shown, columns=columns, scale=scale)
            if sheet.captions:
                drawn = with_captions(
                    drawn, rows, titles, cells=(columns, -(-len(shown) // columns))
                )
            with replacing(output) as path:
                drawn.save(path, format="png")
        case ".gif" | ".mp4":
            shown = torch.stack(list(one_by_one))
            scale = 2 * (sheet.scale or max(1, 56 // shown.shape[-1]))
            animate((grid(image[None], columns=1, scale=scale) for image in shown), output)
        case _:
            with new_folder(output) as folder:
                for k, image in enumerate(one_by_one):
                    path = folder / f"{names[k] if names else f'{k:06}'}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture(image).save(path)


def write_results(
    samples: Tensor, output: Path, *, metadata: Mapping[str, Any], **options: Any
) -> None:
    """Returns nothing; writes samples of a model with these `metadata`: images as `write_images` does, others
    as `write_samples` does, with the `options` of both."""
    if samples.ndim == 4:
        write_images(samples, output, **options)
    else:
        write_samples(samples, output, metadata=metadata, **options)


def write_samples(
    samples: Tensor,
    output: Path,
    *,
    metadata: Mapping[str, Any],
    columns: int,
    sheet: Sheet = Sheet(),
    shown: Tensor | None = None,
    rows: Sequence[str] = (),
    titles: Sequence[str] = (),
    names: Sequence[str] = (),
) -> None:
    """Returns nothing; writes samples (N, ...) of another kind than pictures, as `output` ends.

    .npz: the array `arr_0` (N, ...), in the units of the training data, which are in `metadata`. A folder: an
    array NAME.npy for each of `names`, or by number, or NAME.wav for sounds. .wav: all sounds, one after the
    other. .png: a sheet of `shown` (M, ...), by default of the samples
    with fewer columns where it is wide, as `drawn` shows them, with captions as in `write_images`. .gif and .mp4:
    such a sheet of videos (N, C, T, H, W), frame by frame, or points (N, 3) that turn once.

    Raises ValueError for other endings, and for an animation of other samples.
    """
    import numpy as np

    from eqm.data.values import in_own_units
    from eqm.drawings import drawn, turned
    from eqm.files import new_folder, replacing
    from eqm.pictures import animate, grid

    ending = ending_of(output)
    rate = (metadata.get("data") or {}).get("sample_rate")
    if rate and ending in (".wav", FOLDER):
        from eqm.data.sounds import to_sound, write_sound

        sounds = to_sound(samples, metadata)
        if ending == ".wav":
            with replacing(output) as path, path.open("wb") as file:
                write_sound(sounds.transpose(0, 1).flatten(1), rate, file)
            return
        with new_folder(output) as folder:
            for k, one in enumerate(sounds):
                path = folder / f"{names[k] if names else f'{k:06}'}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_sound(one, rate, str(path))
        return
    if ending in (".npz", FOLDER):
        array = in_own_units(samples.float().cpu(), metadata).numpy()
        if ending == ".npz":
            with replacing(output) as path, path.open("wb") as file:
                np.savez(file, arr_0=array)
            return
        with new_folder(output) as folder:
            for k, one in enumerate(array):
                path = folder / f"{names[k] if names else f'{k:06}'}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, one)
        return
    check_output(output, ANY)
    if ending == ".png":
        seen = samples if shown is None else shown
        if (metadata.get("data") or {}).get("log_mel"):
            from eqm.data.sounds import to_sound

            seen = to_sound(seen, metadata)
        pictures = drawn(seen, spectrogram=bool(rate))
        scale = sheet.scale or max(1, 56 // pictures.shape[-2])
        if len(pictures) == 1 or shown is None:
            columns = max(1, min(columns, len(pictures), 1024 // (pictures.shape[-1] * scale)))
        whole = grid(pictures, columns=columns, scale=scale)
        if sheet.captions and len(pictures) > 1 and shown is not None:
            whole = with_captions(
                whole, rows, titles, cells=(columns, -(-len(pictures) // columns))
            )
        with replacing(output) as path:
            whole.save(path, format="png")
        return
    samples = samples if shown is None else shown
    if samples.shape[1:] == (3,):
        turns = [2 * pi * k / TURNS for k in range(TURNS)]
        animate((grid(one[None], columns=1, scale=1) for one in turned(samples, turns)), output)
        return
    if samples.ndim != 5:
        raise ValueError(
            f"output must end in .png or .npz for samples that are no videos; got {output}"
        )
    scale = sheet.scale or max(1, 56 // samples.shape[-1])
    animate((grid(frame, columns=columns, scale=scale) for frame in samples.unbind(2)), output)


def with_captions(
    sheet: Image, rows: Sequence[str], titles: Sequence[str], *, cells: tuple[int, int]
) -> Image:
    """The sheet of `cells` (columns, rows) on white, with `rows` to the left and `titles` above."""
    from PIL import Image, ImageDraw, ImageFont

    size = 14
    font = ImageFont.load_default(size)
    across, down = sheet.width / cells[0], sheet.height / cells[1]
    left = max((int(font.getlength(row)) + 12 for row in rows if row), default=0)
    top = 22 if titles else 0
    whole = Image.new("RGB", (sheet.width + left, sheet.height + top), "white")
    whole.paste(sheet, (left, top))
    draw = ImageDraw.Draw(whole)
    for k, row in enumerate(rows):
        draw.text((left - 6, top + (k + 0.5) * down), row, "black", font, "rm")
    for title in titles:  # no smaller than can be read
        while size > 9 and font.getlength(title) > across - 2:
            size -= 1
            font = ImageFont.load_default(size)
    for k, title in enumerate(titles):
        while font.getlength(title) > across:
            title = title[:-1]
        draw.text((left + (k + 0.5) * across, top - 4), title, "black", font, "ms")
    return whole


def ending_of(output: Path) -> str:
    """The ending of a path, which is FOLDER for a folder."""
    is_folder = os.path.isdir(output)  # noqa: PTH112 - False, too, for a name that is too long
    return FOLDER if is_folder and output.suffix not in ANY else output.suffix


def file_names(names: Sequence[str], *, each: int = 1) -> list[str]:
    """The paths, without ending, of `each` result files of every picture; `names` are those of `read_images`.

    The folders are those of the pictures, but for the folders that all pictures share, so that pictures of
    one name stay apart. Where paths still are equal, the number of the picture stands in front of its name.
    """
    paths = [_parts(name) for name in names]
    levels = zip(*(path[:-1] for path in paths), strict=False)  # as deep as the shortest
    shared = len(list(takewhile(lambda parts: len(set(parts)) == 1, levels)))
    paths = [path[shared:] for path in paths]
    files = {tuple(part.casefold() for part in path) for path in paths}
    folders = {file[:depth] for file in files for depth in range(1, len(file))}
    if len(files) < len(paths) or any((*f[:-1], f"{f[-1]}.png") in folders for f in files):
        paths = [[*path[:-1], f"{k:04}-{path[-1]}"] for k, path in enumerate(paths)]
    stems = ["/".join(path) for path in paths]
    if each == 1:
        return stems
    return [f"{stem}-{k}" for stem in stems for k in range(each)]


def _parts(name: str) -> list[str]:
    """The folders of a picture and its name without ending, as names of files that lie below one folder."""
    path, row = re.fullmatch(r"(.+?)(?::(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    *folders, last = os.path.abspath(path.replace("\\", "/")).strip("/").split("/")  # noqa: PTH100
    stem = "-".join(filter(None, [PurePath(last).stem, row]))
    return [_short(printable(part).replace(":", "-")) for part in (*folders, stem)]


def _short(part: str) -> str:
    """The name, cut to a length that every file system takes."""
    return part.encode()[:LONGEST].decode(errors="ignore")
