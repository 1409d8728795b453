"""What commands write the pictures they make as: a sheet, a folder, an array, an animation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = ""
"""A folder of pictures has no ending."""
STILL = (".png", ".npz", FOLDER)
ANY = (*STILL, ".gif", ".mp4")


def check_apart(output: Path, pictures: str) -> None:
    """Raises ValueError where `output` lies in the folder `pictures`, which would no longer hold the same."""
    place = Path(pictures)
    if place.is_dir() and output.resolve().is_relative_to(place.resolve()):
        raise ValueError(
            f"output must lie outside of the pictures, {pictures}, whose number and classes it would "
            f"change; got {output}: choose another --output"
        )


def check_output(output: Path, endings: Sequence[str], *, name: str = "output") -> None:
    """Raises ValueError unless `output`, the option called `name`, ends in one of `endings` and is no
    folder; or, where FOLDER is one of them, is a folder that is new or empty."""
    if FOLDER in endings and _ending(output) == FOLDER:
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
    sheet: Tensor | None = None,
    names: Sequence[str] = (),
) -> None:
    """Returns nothing; writes images (N, C, H, W) in -1..1, whole or in parts, as `output` ends.

    A sheet for .png, of `sheet` (M, C, H, W) if there is more to be seen than the images; the array
    `arr_0` (N, H, W, C) uint8 for .npz; one after the other for .gif and .mp4; and into a folder pixel
    by pixel, as NAME.png for every one of `names`, or by number.

    Raises ValueError for other names; `check_output` does so before the work.
    """
    import numpy as np
    import torch

    from eqm.files import new_folder, replacing
    from eqm.pictures import animate, grid, picture, to_uint8

    check_output(output, ANY)
    parts = [images] if isinstance(images, torch.Tensor) else images
    one_by_one = (image for part in parts for image in part)
    match _ending(output):
        case ".npz":
            array = np.concatenate([to_uint8(part) for part in parts])
            with replacing(output) as path, path.open("wb") as file:
                np.savez(file, arr_0=array)
        case ".png":
            shown = torch.cat(list(parts)) if sheet is None else sheet
            with replacing(output) as path:
                scale = max(1, 56 // shown.shape[-1])
                grid(shown, columns=columns, scale=scale).save(path, format="png")
        case ".gif" | ".mp4":
            shown = torch.stack(list(one_by_one))
            scale = 2 * max(1, 56 // shown.shape[-1])
            animate((grid(image[None], columns=1, scale=scale) for image in shown), output)
        case _:
            with new_folder(output) as folder:
                for k, image in enumerate(one_by_one):
                    picture(image).save(folder / f"{names[k] if names else f'{k:06}'}.png")


def check_drawable(channels: int, output: Path) -> None:
    """Raises ValueError where `output` is to be a picture, and none has that many channels."""
    from eqm.pictures import check_channels

    if _ending(output) != ".npz":
        check_channels(channels)


def _ending(output: Path) -> str:
    return FOLDER if output.is_dir() and output.suffix not in ANY else output.suffix


def file_names(names: Sequence[str], *, each: int = 1) -> list[str]:
    """Names without ending for `each` files that come of every picture, called as `read_images` says:
    as its own file is, with a number before it where others are called so too, or after it for each."""
    stems = []
    for name in names:
        path, row = re.fullmatch(r"(.+?)(?::(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
        stems.append("-".join(filter(None, [Path(path).stem.replace(":", "-"), row])))
    if len({stem.casefold() for stem in stems}) < len(stems):
        stems = [f"{k:04}-{stem}" for k, stem in enumerate(stems)]
    if each == 1:
        return stems
    return [f"{stem}-{k}" for stem in stems for k in range(each)]
