"""A detector of parts at work: scores of photographs, and maps of the size of each."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from eqm.files import replacing
from eqm.inspection.photographs import BATCH, Frame, Photographs, as_input
from eqm.schema import convert, json_text, read_json
from eqm.tasks import EqmDetector

LONGEST = 320
"""Photographs are read at no more pixels a side."""
FORMAT, VERSION = "eqm-parts", 1
SETTINGS, REPORT = "parts.json", "report.html"
"""Files beside those of the detector."""


@dataclass(frozen=True)
class Reading:
    """How the photographs of a detector are read; the content of parts.json."""

    channels: int
    height: int
    width: int
    fpr: float
    """The false-alarm rate that is used."""
    span: tuple[float, ...] = ()
    """Black and white of grey pictures of more than 8 bits; empty for those of the file."""

    @property
    def frame(self) -> Frame:
        """What the photographs are brought to."""
        return Frame(self.channels, self.height, self.width)

    def save(self, folder: Path) -> None:
        """Returns nothing; writes parts.json."""
        stored = {"format": FORMAT, "version": VERSION, **asdict(self)}
        with replacing(folder / SETTINGS) as path:
            path.write_text(json_text(stored) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Reading:
        """What `save` wrote. Raises ValueError where it is damaged."""
        advice = "fit the detector again"
        found = read_json(folder / SETTINGS, dict[str, Any], advice=advice)
        if (found.pop("format", ""), found.pop("version", 0)) != (FORMAT, VERSION):
            raise ValueError(f"{folder / SETTINGS} is not of this version of eqm: {advice}")
        reading: Reading = convert(found, cls, f"{folder / SETTINGS}: ", advice=advice)
        return reading


class Judged(NamedTuple):
    """What a detector says of a photograph."""

    number: int
    photograph: np.ndarray
    """(C, H, W), 0..255, at its own size."""
    score: float
    p_value: float
    heat: Tensor
    """The map (H, W): 1 = as good parts are there."""


def judged(
    detector: EqmDetector, frame: Frame, photographs: Photographs, numbers: Sequence[int]
) -> Iterator[Judged]:
    """What the detector says of the photographs of these numbers, but for those that cannot be read."""
    pictures = photographs.read(numbers, frame)
    while some := list(islice(pictures, BATCH)):
        x = as_input(torch.stack([torch.from_numpy(pixels) for _, _, pixels in some]))
        scores, maps = detector.score_samples(x), detector.anomaly_map(x)
        p_values = detector.p_values_of(scores)
        for (number, photograph, _), score, p_value, heat in zip(
            some, scores.tolist(), p_values.tolist(), maps, strict=True
        ):
            yield Judged(number, photograph, score, p_value, widened(heat, photograph.shape[1:]))


def widened(heat: Tensor, size: Sequence[int]) -> Tensor:
    """A map (h, w) at another size (H, W)."""
    if tuple(heat.shape) == tuple(size):
        return heat
    return interpolate(heat[None, None], tuple(size), mode="bilinear", align_corners=False)[0, 0]


def frame_of(shapes: Sequence[tuple[int, int, int]], size: int | None = None) -> Frame:
    """What photographs of these shapes (C, H, W) are brought to: grey if all are, of the middle height and width,
    shrunk to LONGEST pixels a side at most; with `size`, a square of that side. Raises ValueError for none."""
    if not shapes:
        raise ValueError("none of the photographs can be read: replace them")
    channels = max(shape[0] for shape in shapes)
    if size:
        return Frame(channels, size, size)
    height, width = (statistics.median_low(shape[k] for shape in shapes) for k in (1, 2))
    scale = min(1, LONGEST / max(height, width))
    return Frame(channels, max(1, round(height * scale)), max(1, round(width * scale)))
