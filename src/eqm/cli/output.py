"""What commands write and print: sheets, folders, arrays and animations of pictures, and settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from eqm.cli.options import Sheet
from eqm.files import printable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FOLDER = ""
"""A folder of pictures has no ending."""
LONGEST = 200
"""Bytes of the name of a file; most file systems take 255."""
STILL = (".png", ".npz", FOLDER)
ANY = (*STILL, ".gif", ".mp4")


def show_settings(settings: Mapping[str, object]) -> None:
    """Prints one setting a line, names to the left."""
    width = max(map(len, settings))
    for name, value in settings.items():
        print(f"{printable(name):<{width}}  {'none' if value in ('', None) else printable(value)}")


def check_apart(output: Path, pictures: str) -> None:
    """Raises ValueError where `output` lies inside the folder `pictures`."""
    place = Path(pictures)
    if place.is_dir() and output.resolve().is_relative_to(place.resolve()):
        raise ValueError(
            f"output must lie outside of the folder of pictures, {pictures}; got {output}: files in it would "
            "count as pictures"
        )


def check_output(output: Path, endings: Sequence[str], *, name: str = "output") -> None:
    """Raises ValueError unless `output`, the option `name`, can be written: it must end in one of `endings`
    and not be a folder; or, for FOLDER, be a new or empty folder."""
    if FOLDER in endings and ending_of(output) == FOLDER:
        if output.is_dir() and any(output.iterdir()):
            raise ValueError(
                f"{name} must be a new or an empty folder; {output} has files in it: choose another name"
            )
        if output.is_file():
            raise ValueError(f"{name} must be a folder; {output} is a file: choose another name")
        return
    if output.suffix not in endings:
        *some, last = filter(None, endings)
        also = ", or have no ending for a folder" * (FOLDER in endings)
        raise ValueError(f"{name} must end in {', '.join(some)} or {last}{also}; got {output}")
    if output.is_dir():
        raise ValueError(f"{name} must be a file; {output} is a folder: choose another name")
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

    check_output(output, ANY)
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
    return FOLDER if output.is_dir() and output.suffix not in ANY else output.suffix


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
