"""Tensors as pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from eqm.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

ANIMATION_SUFFIXES = (".gif", ".mp4")
"""What `animate` can write."""


def to_uint8(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in -1..1 as bytes 0..255, (N, H, W, C); what lies outside is clipped."""
    scaled = ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).numpy()


def heatmap(images: Tensor, maps: Tensor, *, most: float = 8.0) -> Tensor:
    """Images (N, C, H, W) in grey with maps (N, H, W) over them in red, (N, 3, H, W) in -1..1.

    A pixel of the map at 1 or below is not coloured; it reddens with every doubling, up to `most`."""
    strength = (maps.clamp(1, most).log() / math.log(most))[:, None].to(images)
    red = images.new_tensor([1.0, -0.7, -1.0]).view(1, 3, 1, 1)
    return torch.lerp(images.mean(1, keepdim=True) * 0.8, red, strength)


def grid(images: Tensor, *, columns: int, scale: int = 1, gap: int = 1) -> Image:
    """One picture of images (N, C, H, W) in -1..1, row by row, with `gap` pixels in between.

    Each pixel becomes `scale` wide. Raises ValueError for other than 1, 3 or 4 channels."""
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

    Raises ValueError for other than 1, 3 or 4 channels."""
    from PIL import Image

    check_channels(len(image))
    (pixels,) = to_uint8(image[None])
    return Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels)


def check_channels(channels: int) -> None:
    """Raises ValueError for what no picture can be made of."""
    if channels not in (1, 3, 4):
        raise ValueError(
            f"a picture needs 1, 3 or 4 channels; got {channels}: decode latents first, or save an .npz"
        )


def animate(
    frames: Iterable[Image], path: Path | str, *, seconds: float = 0.07, last_seconds: float = 1.5
) -> None:
    """Returns nothing; writes pictures of one size to `path`, a .gif or an .mp4.

    Each is shown for `seconds`, the last for `rest`; a GIF begins again then. The file is whole or
    not there. An MP4 (H.264, a pixel wider or higher where a size is odd) needs imageio-ffmpeg:
    `pip install 'eqm[video]'`.

    Raises ValueError for other names, no pictures, or sizes that differ, and OSError as `replacing`.
    """
    path, pictures = Path(path), list(frames)
    if path.suffix not in ANIMATION_SUFFIXES:
        raise ValueError(f"an animation must end in {' or '.join(ANIMATION_SUFFIXES)}; got {path}")
    if not pictures or len({picture.size for picture in pictures}) > 1:
        raise ValueError(f"an animation needs pictures of one size; got {len(pictures)} pictures")
    if not (seconds > 0 and last_seconds > 0):
        raise ValueError(
            f"seconds and last_seconds must be positive; got {seconds} and {last_seconds}"
        )
    with replacing(path) as file:
        if path.suffix == ".gif":
            # GIF counts hundredths of a second; viewers slow down what is faster than two.
            times = [max(20, round(1000 * seconds))] * (len(pictures) - 1) + [
                round(1000 * last_seconds)
            ]
            pictures[0].save(
                file,
                format="gif",
                save_all=True,
                append_images=pictures[1:],
                duration=times,
                loop=0,
            )
        else:
            _film(pictures, file, seconds, last_seconds)


def check_mp4_writer() -> None:
    """Raises ValueError where what `animate` writes an .mp4 with is not installed."""
    if find_spec("imageio_ffmpeg") is None:
        raise ValueError(
            "an .mp4 needs imageio-ffmpeg, which is not installed: pip install 'eqm[video]', "
            "or write a .gif"
        )


def _film(pictures: list[Image], file: Path, seconds: float, last_seconds: float) -> None:
    check_mp4_writer()
    from imageio_ffmpeg import write_frames

    width, height = (size + size % 2 for size in pictures[0].size)  # H.264 wants even sizes
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
