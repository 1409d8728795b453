"""Overlays: a photograph in grey, what is anomalous in colour, a contour at the threshold, and a scale."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import max_pool2d

from eqm.inspection.photographs import converted

STOPS = np.array([[255, 214, 10], [255, 110, 0], [214, 0, 60]], np.float32)
"""The colours from the weakest to the strongest."""
CONTOUR = (0, 229, 255)
"""The colour of the contour at the threshold."""
BEGINS, ENDS = 0.5, 2.0
"""Colour begins at threshold ** BEGINS and is full at threshold ** ENDS."""
STRIP = 34
"""Height of the strip below the photograph with the scale."""
NARROWEST = 160
"""Width of the scale at least."""


def overlay(photograph: np.ndarray, heat: Tensor, threshold: float) -> Image.Image:
    """The photograph (C, H, W), 0..255, in grey, coloured where the map `heat` (H, W) is high.

    The map is 1 where the part is as good parts are there. Up to the root of `threshold` nothing is coloured, so a
    good part stays grey. The colour grows with the logarithm of the map, from yellow to red. A line goes around
    what is above the threshold. The picture has the size of the photograph, and below it a strip of 34 pixels
    with the scale; the strip is at least 160 pixels wide."""
    grey = converted(photograph, 1)[0].astype(np.float32)
    height, width = grey.shape
    pixels = _coloured(grey, _position(heat.numpy(), threshold))
    outside = _around(heat > threshold, max(1, min(height, width) // 250))
    pixels[outside] = CONTOUR
    whole = Image.new("RGB", (max(width, NARROWEST), height + STRIP), (24, 27, 33))
    whole.paste(Image.fromarray(pixels), (0, 0))
    whole.paste(scale(whole.width, threshold), (0, height))
    return whole


def scale(width: int, threshold: float) -> Image.Image:
    """The strip that says what the colours mean, (STRIP, width)."""
    strip = Image.new("RGB", (width, STRIP), (24, 27, 33))
    left, right = 12, width - 12
    position = np.linspace(0, ENDS, right - left)[None].repeat(9, 0)
    bar = _coloured(np.full(position.shape, 128, np.float32), position)
    strip.paste(Image.fromarray(bar), (left, 4))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(11)
    at = left + round((right - left - 1) * float(_position(np.array(threshold), threshold)) / ENDS)
    draw.line((at, 2, at, 15), CONTOUR, 2)
    strongest = _level(threshold) ** ENDS
    for x, text, anchor in (
        (left, "1 as good parts", "la"),
        (at, f"{threshold:.3g}", "ma"),
        (right, f"{strongest:.3g}", "ra"),
    ):
        draw.text((x, 17), text if width >= 320 or anchor != "la" else "1", "white", font, anchor)
    return strip


def mask(heat: Tensor, threshold: float) -> Image.Image:
    """What is above the threshold, 255, and all else, 0, in the size of the map (H, W)."""
    return Image.fromarray(np.where((heat > threshold).numpy(), 255, 0).astype(np.uint8))


def _level(threshold: float) -> float:
    """The threshold, not below 1.25, so that the scale has a length, and finite."""
    return min(max(threshold, 1.25), 1e18)


def _position(heat: np.ndarray, threshold: float) -> np.ndarray:
    """Where values of a map stand on the scale: 0 as good parts, 1 at the threshold."""
    return np.log(np.clip(heat, 1, 1e36)) / math.log(_level(threshold))


def _coloured(grey: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Grey (H, W) with colours for positions on the scale over it, (H, W, 3) bytes."""
    strength = ((position - BEGINS) / (ENDS - BEGINS)).clip(0, 1)
    place = strength * (len(STOPS) - 1)
    first = place.astype(int).clip(0, len(STOPS) - 2)
    share = (place - first)[..., None]
    colour = STOPS[first] * (1 - share) + STOPS[first + 1] * share
    opacity = np.where(strength > 0, 0.15 + 0.6 * strength, 0)[..., None]
    return (
        (grey[..., None] * (1 - opacity) + colour * opacity).round().clip(0, 255).astype(np.uint8)
    )


def _around(inside: Tensor, width: int) -> np.ndarray:
    """The line of that width around what is inside, (H, W) bool."""
    wide = max_pool2d(inside[None, None].float(), 2 * width + 1, 1, width)[0, 0] > 0
    line: np.ndarray = torch.logical_and(wide, ~inside).numpy()
    return line
