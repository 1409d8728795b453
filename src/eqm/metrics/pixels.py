"""How well an anomaly map finds the anomalous pixels: areas under curves, and the best F1."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eqm.checks import (
    as_floats,
    check_count,
    check_fraction,
    check_ratio,
    check_row,
    kind_of,
    seeded,
)
from eqm.metrics.bootstrap import Interval

Pictures = Tensor | Sequence[Any]
"""A tensor or an array (N, H, W), or N of them (H, W) each, which may differ in size."""
LEVELS = 4096
"""Maps are rounded to so many levels for the intervals; values are exact."""


class F1(NamedTuple):
    """The best F1 of a map, and where it is reached."""

    value: float
    """Harmonic mean of precision and recall."""
    threshold: float
    """Pixels of at least this value count as anomalous."""
    precision: float
    recall: float


class PixelIntervals(NamedTuple):
    """Three metrics of maps with their confidence intervals."""

    auroc: Interval
    pro: Interval
    f1: Interval


def pixel_auroc(maps: Pictures, masks: Pictures) -> float:
    """Returns the area under the ROC curve of all pixels together, higher = more anomalous.

    `maps` and `masks` are (N, H, W), or sequences of N pictures (H, W), which may differ in size. A mask
    is True where its picture is anomalous. Values may be infinite. Large regions count more than small
    ones; `pro` counts all regions alike.

    Raises ValueError if a mask has another shape than its map or other values than 0 and 1, for NaN in a
    map, and if no pixel or every pixel is anomalous.

    >>> pixel_auroc(torch.tensor([[[0.1, 0.4, 0.9]]]), torch.tensor([[[False, False, True]]]))
    1.0
    """
    counts = _exact(maps, masks)
    return float(_auroc(counts.normal, counts.anomalous))


def best_f1(maps: Pictures, masks: Pictures) -> F1:
    """Returns the highest F1 of all pixels together over all thresholds, and its threshold.

    The threshold is chosen with the masks, so F1 on other pictures is lower. Of equal ones it is the
    highest. Takes and raises what `pixel_auroc` does.

    >>> best_f1(torch.tensor([[[0.1, 0.4, 0.9]]]), torch.tensor([[[False, True, True]]])).value
    1.0
    """
    counts = _exact(maps, masks)
    right, wrong = counts.anomalous.cumsum(0), counts.normal.cumsum(0)
    scores = 2 * right / (right + wrong + right[-1])
    k = int((scores == scores.max()).nonzero()[0])
    precision, recall = right[k] / (right[k] + wrong[k]), right[k] / right[-1]
    return F1(float(scores[k]), float(counts.values[k]), float(precision), float(recall))


def pro(maps: Pictures, masks: Pictures, *, limit: float = 0.3) -> float:
    """Returns the area under the per-region overlap curve up to a false-positive rate, divided by it.

    The overlap at a threshold is the mean, over all connected regions of all masks, of the share of the
    region at or above the threshold. It is plotted against the share of normal pixels of all pictures at
    or above the threshold, and the area from 0 to `limit` is taken (AUPRO, arXiv 1911.02357, section 5).
    So 1 is perfect, and a random map has `limit` / 2. Pixels that touch at a corner belong to one region.
    Needs scipy.

    Takes and raises what `pixel_auroc` does, and for a `limit` outside (0, 1].

    >>> pro(torch.tensor([[[0.1, 0.4, 0.9]]]), torch.tensor([[[False, False, True]]]))
    1.0
    """
    check_ratio(limit=limit)
    counts = _exact(maps, masks, regions=True)
    return float(_pro(counts.normal, counts.overlap, limit))


def pixel_intervals(
    maps: Pictures,
    masks: Pictures,
    *,
    limit: float = 0.3,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> PixelIntervals:
    """Returns `pixel_auroc`, `pro` and the value of `best_f1`, each with its percentile interval.

    Pictures with and without anomalous pixels are drawn with replacement, each kind as often as it is
    there, since the pixels of a picture are not independent. Maps are rounded to 4,096 levels
    for the bounds. Takes and raises what `pro` and `bootstrap` do.
    """
    check_ratio(limit=limit)
    check_count(resamples=resamples)
    check_fraction(1, level=level)
    generator = seeded(seed)
    pairs = _pairs(maps, masks)
    exact = _counted(pairs, regions=True)
    values = [_auroc(exact.normal, exact.anomalous), _pro(exact.normal, exact.overlap, limit)]
    values.append(_f1(exact.normal, exact.anomalous))
    odd = torch.tensor([bool(mask.any()) for _, mask in pairs])
    drawn = torch.zeros(resamples, len(pairs), dtype=torch.float64)
    for rows in (odd.nonzero()[:, 0], (~odd).nonzero()[:, 0]):
        if len(rows):
            chosen = rows[torch.randint(len(rows), (resamples, len(rows)), generator=generator)]
            drawn.scatter_add_(1, chosen, torch.ones(chosen.shape, dtype=torch.float64))
    normal, anomalous, overlap = (drawn @ each for each in _histograms(pairs, exact.values))
    found = torch.stack(
        [_auroc(normal, anomalous), _pro(normal, overlap, limit), _f1(normal, anomalous)]
    )
    tail = (1 - level) / 2
    bounds = found.quantile(torch.tensor([tail, 1 - tail], dtype=found.dtype), dim=1).T.tolist()
    return PixelIntervals(
        *(Interval(low, float(v), high) for v, (low, high) in zip(values, bounds, strict=True))
    )


@dataclass(frozen=True, eq=False)
class _Counts:
    """What lies at each distinct value of the maps, highest first, (L,) each."""

    values: Tensor
    normal: Tensor
    """The number of normal pixels."""
    anomalous: Tensor
    """The number of anomalous pixels."""
    overlap: Tensor
    """The sum of 1 / (pixels of the region) over anomalous pixels."""


def _auroc(normal: Tensor, anomalous: Tensor) -> Tensor:
    wrong, right = _rates(normal), _rates(anomalous)
    return torch.trapezoid(right, wrong)


def _f1(normal: Tensor, anomalous: Tensor) -> Tensor:
    right, wrong = anomalous.cumsum(-1), normal.cumsum(-1)
    return (2 * right / (right + wrong + right[..., -1:])).amax(-1)


def _pro(normal: Tensor, overlap: Tensor, limit: float) -> Tensor:
    """Clips the curve at the limit, where it is a straight line between two thresholds."""
    wrong, right = _rates(normal), _rates(overlap)
    step, rise = wrong.diff(dim=-1), right.diff(dim=-1)
    inside = (limit - wrong[..., :-1]).clamp(min=0).minimum(step)
    part = torch.where(step > 0, inside / step, 0)
    return (inside * (right[..., :-1] + part * rise / 2)).sum(-1) / limit


def _rates(counts: Tensor) -> Tensor:
    """Shares (..., L + 1) of what lies at or above each value, from 0 to 1."""
    found = torch.nn.functional.pad(counts.cumsum(-1), (1, 0))
    return found / found[..., -1:]


def _exact(maps: Pictures, masks: Pictures, *, regions: bool = False) -> _Counts:
    return _counted(_pairs(maps, masks), regions=regions)


def _counted(pairs: list[tuple[Tensor, Tensor]], *, regions: bool) -> _Counts:
    values, order = torch.cat([x.flatten() for x, _ in pairs]).sort(descending=True)
    odd = torch.cat([mask.flatten() for _, mask in pairs])[order]
    last = torch.cat([(values[1:] != values[:-1]).nonzero()[:, 0], torch.tensor([len(values) - 1])])
    zero = torch.zeros(1, dtype=torch.float64)

    def at_each(what: Tensor) -> Tensor:
        return what.double().cumsum(0)[last].diff(prepend=zero)

    overlap = zero
    if regions:
        overlap = at_each(torch.cat([_shares(mask).flatten() for _, mask in pairs])[order])
    return _Counts(values[last], at_each(~odd), at_each(odd), overlap)


def _histograms(pairs: list[tuple[Tensor, Tensor]], values: Tensor) -> list[Tensor]:
    """For each picture, normal and anomalous pixels and overlap at up to `LEVELS` levels, (N, L) each.

    Half of the levels are quantiles of all distinct values, half of those of anomalous pixels.
    """
    odd = torch.cat([x[mask] for x, mask in pairs]).sort().values
    rising = values.flip(0)
    places = [torch.linspace(0, len(each) - 1, LEVELS // 2).long() for each in (rising, odd)]
    edges = torch.cat([rising[places[0]], odd[places[1]]]).unique()
    found = torch.zeros(3, len(pairs), len(edges), dtype=torch.float64)
    for k, (x, mask) in enumerate(pairs):
        bins = len(edges) - torch.searchsorted(edges, x.flatten(), right=True)
        for row, weights in enumerate((~mask, mask, _shares(mask))):
            found[row, k].scatter_add_(0, bins, weights.flatten().double())
    return list(found)


def _shares(mask: Tensor) -> Tensor:
    """1 / (pixels of its region) at each anomalous pixel, and 0 elsewhere, (H, W)."""
    try:
        label = importlib.import_module("scipy.ndimage").label
    except ImportError as error:
        raise ValueError("pro needs scipy: pip install scipy") from error
    regions = label(mask.numpy(), structure=np.ones((3, 3)))[0].ravel()
    shares = 1 / np.bincount(regions, minlength=2)[: regions.max() + 1].clip(1)
    shares[0] = 0
    return torch.from_numpy(shares[regions]).view(mask.shape)


def _pairs(maps: Pictures, masks: Pictures) -> list[tuple[Tensor, Tensor]]:
    """Maps in their own precision, and masks of booleans, on the CPU."""
    check_row(maps=maps, masks=masks)
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(
            f"maps and masks must be as many, at least one; got {len(maps)} and {len(masks)}"
        )
    found = []
    for k, (x, mask) in enumerate(zip(maps, masks, strict=True)):
        x = as_floats("(H, W)", 2, **{f"maps[{k}]": x}).cpu()
        odd = as_floats("(H, W)", 2, **{f"masks[{k}]": mask}).cpu()
        if x.shape != odd.shape:
            raise ValueError(
                f"masks[{k}] must have the shape of its map, {tuple(x.shape)}; got {kind_of(mask)}"
            )
        if x.isnan().any():
            raise ValueError(
                f"maps must not be NaN; maps[{k}] has {int(x.isnan().sum())} pixels of NaN"
            )
        if not ((odd == 0) | (odd == 1)).all():
            raise ValueError(
                f"masks must hold True and False, or 1 and 0; masks[{k}] has values from "
                f"{odd.min():g} to {odd.max():g}: pass mask > 0"
            )
        found.append((x, odd == 1))
    anomalous = sum(int(mask.sum()) for _, mask in found)
    if not 0 < anomalous < sum(mask.numel() for _, mask in found):
        raise ValueError(
            f"masks must have anomalous and normal pixels; got {'none' if not anomalous else 'only'} "
            "anomalous ones: pass pictures of both kinds"
        )
    return found
