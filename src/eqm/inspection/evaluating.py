"""How well a detector of parts finds known defects, by kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqm.data.decoding import BROKEN, reason
from eqm.files import printable
from eqm.inspection.judging import Reading, judged
from eqm.inspection.layout import GOOD, Tested
from eqm.inspection.photographs import Photographs, converted
from eqm.inspection.rates import binomial_interval
from eqm.metrics import Interval, auroc, average_precision, best_f1, bootstrap, pixel_auroc, pro
from eqm.tasks import EqmDetector

MOST_PIXELS = 1 << 25
"""Of larger sets of maps every second, third, ... pixel of each row and column is used."""


@dataclass(frozen=True)
class Kind:
    """The metrics of one kind of defect, or of all, against the good parts."""

    name: str
    count: int
    missed: int
    """Parts with a defect that are not called anomalous."""
    auroc: Interval
    """Of pictures, with its 95 % bootstrap interval."""
    average_precision: float
    pixel_auroc: float | None = None
    """None without masks, as the next two are."""
    pro: float | None = None
    """Area under the per-region overlap up to 30 % false positives, divided by .3."""
    f1: float | None = None
    """The best over all thresholds."""
    f1_used: float | None = None
    """F1 of pixels at the threshold of the map that is used."""


@dataclass(frozen=True)
class Evaluation:
    """What a detector finds among parts with known defects."""

    fpr: float
    good: int
    false_alarms: int
    interval: tuple[float, float]
    """Where the true rate of false alarms lies with 95 % confidence (Clopper and Pearson)."""
    kinds: tuple[Kind, ...]
    """The last one is all of them."""
    stride: int
    """Every so many pixels of rows and columns are used for the metrics of pixels."""
    unreadable: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        kinds = [asdict(kind) | {"auroc": kind.auroc._asdict()} for kind in self.kinds]
        return asdict(self) | {"kinds": kinds}


def evaluate_parts(
    detector: EqmDetector,
    reading: Reading,
    photographs: Photographs,
    pictures: Sequence[Tested],
    *,
    fpr: float,
) -> Evaluation:
    """The metrics by kind of `pictures` among `photographs`, and of all kinds together.

    Pictures that cannot be read are left out. Raises ValueError for a mask that cannot be read, has another size
    than its picture or other values than two, and for a kind of which no picture can be read."""
    threshold, level = detector.threshold(fpr), detector.map_threshold(fpr)
    by_number = {one.number: one for one in pictures}
    masked = {one.kind for one in pictures if one.mask is not None}
    sizes = [photographs.headers[k][1:] for k in by_number if k in photographs.headers]
    pixels = sum(map(math.prod, sizes))
    stride = math.ceil(math.sqrt(pixels / MOST_PIXELS)) if masked else 1
    scores: dict[str, list[float]] = {one.kind: [] for one in pictures}
    maps: dict[str, list[Tensor]] = {one.kind: [] for one in pictures}
    masks: dict[str, list[Tensor]] = {one.kind: [] for one in pictures}
    for found in judged(detector, reading.frame, photographs, list(by_number)):
        one = by_number[found.number]
        scores[one.kind].append(found.score)
        if one.mask is not None:
            truth = _mask(photographs, one, found.heat.shape)
        elif masked and one.kind == GOOD:
            truth = torch.zeros(found.heat.shape, dtype=torch.bool)
        else:
            continue
        maps[one.kind].append(found.heat[::stride, ::stride].clone())
        masks[one.kind].append(truth[::stride, ::stride])
    for kind, values in scores.items():
        if not values:
            raise ValueError(f"no picture of {printable(kind)} can be read: replace them")
    usual = torch.tensor(scores[GOOD], dtype=torch.float64)
    kinds = [kind for kind in scores if kind != GOOD]
    by_kind = [_kind(name, [name], usual, scores, maps, masks, threshold, level) for name in kinds]
    by_kind.append(_kind("all", kinds, usual, scores, maps, masks, threshold, level))
    alarms = int((usual > threshold).sum())
    return Evaluation(
        fpr,
        len(usual),
        alarms,
        binomial_interval(alarms, len(usual)),
        tuple(by_kind),
        stride,
        tuple(photographs.names[k] for k in by_number if k in photographs.unreadable),
    )


def _kind(
    name: str,
    kinds: Sequence[str],
    usual: Tensor,
    scores: dict[str, list[float]],
    maps: dict[str, list[Tensor]],
    masks: dict[str, list[Tensor]],
    threshold: float,
    level: float,
) -> Kind:
    """The metrics of these kinds together, against the good parts."""
    odd = torch.tensor([score for kind in kinds for score in scores[kind]], dtype=torch.float64)
    missed = int((odd <= threshold).sum())
    interval = bootstrap(auroc, usual, odd)
    kind = Kind(name, len(odd), missed, interval, average_precision(usual, odd))
    heats = [heat for each in kinds for heat in maps[each]]
    if not heats:
        return kind
    heats = maps[GOOD] + heats
    truths = masks[GOOD] + [truth for each in kinds for truth in masks[each]]
    return replace(
        kind,
        pixel_auroc=pixel_auroc(heats, truths),
        pro=pro(heats, truths),
        f1=best_f1(heats, truths).value,
        f1_used=_f1(heats, truths, level),
    )


def _f1(heats: Sequence[Tensor], truths: Sequence[Tensor], level: float) -> float:
    """The F1 of all pixels together at a level of the map."""
    pairs = [(heat > level, truth) for heat, truth in zip(heats, truths, strict=True)]
    right = sum(int((found & truth).sum()) for found, truth in pairs)
    called = sum(int(found.sum() + truth.sum()) for found, truth in pairs)
    return 2 * right / called if called else math.nan


def _mask(photographs: Photographs, one: Tested, size: Sequence[int]) -> Tensor:
    """The mask of a picture of that height and width, (H, W) bool."""
    assert one.mask is not None
    name, picture = (printable(photographs.names[k]) for k in (one.mask, one.number))
    try:
        values = converted(photographs.decoders[one.mask](), 1)[0]
    except BROKEN as error:
        raise ValueError(f"cannot read the mask {name} ({reason(error)}): replace it") from error
    if values.shape != tuple(size):
        raise ValueError(
            f"the mask {name} has {values.shape[1]}x{values.shape[0]} pixels, and its picture {picture} has "
            f"{size[1]}x{size[0]}: make the mask of the size of its picture"
        )
    if len(levels := np.unique(values)) > 2 or levels[0] != 0:
        raise ValueError(
            f"the mask {name} must be 0 where the part is good and one other value elsewhere; it has "
            f"{len(levels):,} values from {levels[0]:g} to {levels[-1]:g}: set its pixels to 0 and 255"
        )
    return torch.from_numpy(values > 0)
