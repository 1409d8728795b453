"""Tensors as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def to_uint8(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in -1..1 as bytes 0..255, (N, H, W, C); what lies outside is clipped."""
    scaled = ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).numpy()


def grid(images: Tensor, *, columns: int, scale: int = 1, gap: int = 1) -> Image:
    """One picture of images (N, C, H, W) in -1..1, row by row, with `gap` pixels in between.

    Each pixel becomes `scale` wide. Raises ValueError for other than 1, 3 or 4 channels."""
    from PIL import Image

    tiles = to_uint8(images)
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8
    )
    for k, tile in enumerate(tiles):
        top, left = (k // columns) * (height + gap) + gap, (k % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = tile
    if channels not in (1, 3, 4):
        raise ValueError(
            f"a picture needs 1, 3 or 4 channels; got {channels}: decode latents first, or save an .npz"
        )
    picture = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
