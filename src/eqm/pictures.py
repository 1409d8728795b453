"""Tensors as pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from eqm.checks import check_positive
from eqm.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

ANIMATION_SUFFIXES = (".gif", ".mp4")
"""The file types that `animate` writes."""


def to_uint8(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in -1..1 as bytes 0..255, (N, H, W, C); other values are clipped."""
    scaled = ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).numpy()


def heatmap(images: Tensor, maps: Tensor, *, most: float = 8.0) -> Tensor:
    """Grey images (N, C, H, W) with maps (N, H, W) over them in red, (N, 3, H, W) in -1..1.

    The red grows with the logarithm of the map, from none at 1 to full at `most`."""
    strength = (maps.clamp(1, most).log() / math.log(most))[:, None].to(images)
    red = images.new_tensor([1.0, -0.7, -1.0]).view(1, 3, 1, 1)
    return torch.lerp(images.mean(1, keepdim=True) * 0.8, red, strength)


def grid(images: Tensor, *, columns: int, scale: int = 1, gap: int = 1) -> Image:
    """One picture with all images (N, C, H, W) in -1..1, row by row, `gap` pixels apart.

    Each pixel becomes `scale` pixels wide. Raises ValueError unless there are 1, 3 or 4 channels."""
    from PIL import Image

    check_channels(images.shape[1])
    tiles = to_uint8(images)
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8
    )
    for k, tile in enumerate(tiles):
        top, left = (k // columns) * (height + gap) + gap, (k % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = tile
    picture = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def picture(image: Tensor) -> Image:
    """One image (C, H, W) in -1..1 as a picture of its size.

    Raises ValueError unless there are 1, 3 or 4 channels."""
    return grid(image[None], columns=1, gap=0)


def check_channels(channels: int) -> None:
    """Raises ValueError unless there are 1, 3 or 4 channels."""
    if channels not in (1, 3, 4):
        raise ValueError(
            f"a picture must have 1, 3 or 4 channels; got {channels}: decode latents first, or save an .npz"
        )


def animate(
    frames: Iterable[Image], path: Path | str, *, seconds: float = 0.07, last_seconds: float = 1.5
) -> None:
    """Returns nothing; writes pictures of one size to `path`, a .gif or an .mp4.

    Each picture is shown for `seconds`, the last one for `last_seconds`; a GIF repeats. An MP4 (H.264)
    needs imageio-ffmpeg, `pip install 'eqm[video]'`; odd sizes grow by a pixel.

    Raises ValueError for other file types, no pictures, pictures of different sizes, and times that are
    not positive; OSError as `replacing`.
    """
    path, pictures = Path(path), list(frames)
    if path.suffix not in ANIMATION_SUFFIXES:
        raise ValueError(f"an animation must end in {' or '.join(ANIMATION_SUFFIXES)}; got {path}")
    if not pictures or len(sizes := {picture.size for picture in pictures}) > 1:
        found = f"sizes {sorted(sizes)}" if pictures else "none"
        raise ValueError(f"an animation needs pictures of one size; got {found}")
    check_positive(seconds=seconds, last_seconds=last_seconds)
    with replacing(path) as file:
        if path.suffix == ".gif":
            # viewers slow down frames shorter than two hundredths of a second
            times = [max(20, round(1000 * seconds))] * (len(pictures) - 1)
            times.append(round(1000 * last_seconds))
            settings = {
                "save_all": True,
                "append_images": pictures[1:],
                "duration": times,
                "loop": 0,
            }
            pictures[0].save(file, format="gif", **settings)
        else:
            with suppress(OSError):  # of a pipe that ffmpeg closed, without the reason
                _write_mp4(pictures, file, seconds, last_seconds)
            if not _is_whole_mp4(file):
                raise OSError(
                    f"cannot write {path} (ffmpeg stopped before the end): free some space, raise the limit of "
                    "file sizes (ulimit -f), or write a .gif"
                )


def _is_whole_mp4(file: Path) -> bool:
    """Whether a file is a row of whole boxes, the index `moov` among them, which ffmpeg writes last."""
    boxes, size = set[bytes](), file.stat().st_size
    with file.open("rb") as stream:
        while (place := stream.tell()) < size:
            length, name = int.from_bytes(stream.read(4)), stream.read(4)
            if length == 1:  # a long one
                length = int.from_bytes(stream.read(8))
            if length < 8 or place + length > size:
                return False
            boxes.add(name)
            stream.seek(place + length)
    return b"moov" in boxes


def check_mp4_writer() -> None:
    """Raises ValueError unless imageio-ffmpeg is installed, which writes an .mp4."""
    if find_spec("imageio_ffmpeg") is None:
        raise ValueError(
            "an .mp4 needs imageio-ffmpeg, which is not installed: pip install 'eqm[video]', "
            "or write a .gif"
        )


def _write_mp4(pictures: list[Image], file: Path, seconds: float, last_seconds: float) -> None:
    check_mp4_writer()
    from imageio_ffmpeg import write_frames

    width, height = (size + size % 2 for size in pictures[0].size)  # H.264 needs even sizes
    writer = write_frames(
        os.fspath(file),
        (width, height),
        fps=1 / seconds,
        macro_block_size=2,
        output_params=["-f", "mp4"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    last = [pictures[-1]] * (max(1, round(last_seconds / seconds)) - 1)
    for picture in [*pictures, *last]:
        pixels = np.asarray(picture.convert("RGB"))
        more = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
        writer.send(np.ascontiguousarray(np.pad(pixels, more, mode="edge")))
    writer.close()
