"""Trains a detector from good pictures alone: features, a field on them, statistics and calibration."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from eqm.checks import check_count, kind_of, seeded
from eqm.encoders import FeatureMaps, about_encoder, open_maps
from eqm.models import ConvConfig, Network
from eqm.models.network import build
from eqm.objective import EquilibriumMatching
from eqm.tasks.calibration import FEWEST as FEWEST_HELD_OUT
from eqm.tasks.calibration import CalibrationWarning, check_rate
from eqm.tasks.detect import EqmDetector
from eqm.tasks.detector_inputs import Copies, batches_of, has_values
from eqm.tasks.residuals import ResidualGaussian
from eqm.tasks.scores import ScoreConfig, ScoreContext

GAMMAS = (0.5, 0.7, 0.8, 0.9)
"""Noise levels of the residuals."""
STEPS = 300
"""Training steps of the field."""
BATCH = 16
"""Maps in one training step."""
LEARNING_RATE = 3e-3
"""Of AdamW; it rises for WARMUP steps and then falls to 0 as a half cosine."""
WARMUP = 50
HELD_OUT = 0.2
"""The share of the good pictures that calibrates, at least what the false alarm rate needs."""
FEWEST = 10
"""The fewest good pictures."""
NETWORK = ConvConfig(width=64, depth=2)
"""The field; the shape is that of the maps."""
SMALL = 48
"""Pictures with no side longer than this are learnt as pixels."""
LARGEST = 64
"""Pixels are learnt at this side at most."""

Progress = Callable[[int, int], object]
"""Gets the steps done and those of all."""


def train_detector(
    good: Tensor | Iterable[Tensor],
    *,
    features: Any = "auto",
    size: int | None = None,
    fpr: float = 0.05,
    seed: int = 0,
    steps: int | None = None,
    progress: Progress | None = None,
) -> EqmDetector:
    """A calibrated detector that learnt `good` pictures alone, (N, 1 or 3, H, W) in -1..1, or batches of them.

    A random part of the pictures is held out and gives the p-values and thresholds; the others train a small
    field, and give the mean and covariance of what it gets wrong at each place. Batches may have pictures of
    different sizes. Its `notes` say what was chosen.

    `features` are "pixels", "lite0", "lite0:SIDE", "dinov2:FOLDER", a `FeatureMaps` or a torch.nn.Module that
    returns maps; "auto" takes pixels for pictures up to 48x48 and lite0 for larger ones. `size` is the side
    that pictures are resized to, 224 by default. `fpr` is the false alarm rate that `predict` allows.
    `progress` is called with the steps done and those of all.

    Raises ValueError for fewer than ten pictures, features that are not installed, and pictures that are no finite
    floats in -1..1. Warns with `CalibrationWarning` of copies, and of too few pictures for the rate `fpr`.
    """
    check_rate(fpr)
    check_count(**{k: v for k, v in (("steps", steps), ("size", size)) if v is not None})
    if progress is not None and not callable(progress):
        raise ValueError(
            f"progress must be a function of the steps done and all; got {kind_of(progress)}"
        )
    pictures = _checked(good)
    count = sum(map(len, pictures))
    if count < FEWEST:
        raise ValueError(f"good must be at least {FEWEST} pictures, better 100; got {count}")
    generator = seeded(seed)
    maps_of, notes = _features(features, pictures, size)
    raw = torch.cat([maps_of.raw(batch).half() for batch in pictures])  # (N, K, h, w)
    least = max(math.ceil(1 / fpr) - 1, FEWEST_HELD_OUT)
    held = min(max(round(HELD_OUT * count), least), count // 2)
    order = torch.randperm(count, generator=generator)
    held_out, train = order[:held].sort().values, order[held:].sort().values
    encoder = maps_of.whitened(raw[rows].float() for rows in train.split(64))
    field = _learnt(encoder, raw[train], steps or STEPS, generator, progress)
    field.metadata = {"data": {"encoder": about_encoder(encoder)}}
    config = ScoreConfig.of(field, gammas=GAMMAS, seed=seed)
    detector = EqmDetector(field, "gaussian", fpr, config, encoder=encoder)
    with torch.no_grad():
        detector.usual = ResidualGaussian.of(
            ScoreContext(field, x, None, config).mean_residual for x in _white(encoder, raw[train])
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # said below, for all pictures
        chosen = list(_rows(pictures, held_out))
        detector.fit(chosen)
    ranks = detector.score_samples(chosen).argsort(stable=True)
    detector.held_out = held_out[ranks]
    notes += (
        f"{held:,} of {count:,} good pictures are held out: false alarm rates from "
        f"{1 / (held + 1):.2g} can be promised",
    )
    copies = Copies()
    for batch in pictures:
        copies.add(batch)
    problems = copies.problems()
    try:
        detector.threshold()
    except ValueError as error:
        problems.append(str(error))
    detector.notes = notes + tuple(problems)
    for problem in problems:
        warnings.warn(problem, CalibrationWarning, stacklevel=2)
    return detector


def _checked(good: Tensor | Iterable[Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for batch in batches_of(good):
        pictures = isinstance(batch, Tensor) and batch.ndim == 4 and batch.shape[1] in (1, 3)
        if not (pictures and batch.is_floating_point() and has_values(batch)):
            raise ValueError(
                f"good must be pictures (N, 1 or 3, H, W) with floats in -1..1; got {kind_of(batch)}: "
                "convert bytes by good.float() / 127.5 - 1"
            )
        if batch.numel() and not bool(batch.abs().max() <= 1.001):  # NaN fails too
            raise ValueError(
                f"good must be finite and lie in -1..1; got {batch.min():g}..{batch.max():g}: rescale or "
                "clip them"
            )
        if found and batch.shape[1] != found[0].shape[1]:
            raise ValueError(
                f"good must be all grey or all RGB; got {found[0].shape[1]} and {batch.shape[1]} channels: "
                "convert them to one"
            )
        if len(batch):
            found.append(batch.detach().float().cpu())
    return found


def _features(
    features: Any, pictures: list[Tensor], size: int | None
) -> tuple[FeatureMaps, tuple[str, ...]]:
    """The feature maps, and sentences that say what was chosen."""
    sizes = {tuple(batch.shape[2:]) for batch in pictures}
    longest = max(max(sides) for sides in sizes)
    if isinstance(features, str) and features == "auto":
        features = "pixels" if longest <= SMALL else "lite0"
    if isinstance(features, str) and features == "pixels":
        maps = open_maps(f"resized:{size or min(longest, LARGEST)}")
    else:
        maps = open_maps(features, side=size)
    said = "pictures of " + ", ".join(f"{w}x{h}" for h, w in sorted(sizes)[:3])
    said += " and other sizes" * (len(sizes) > 3)
    return maps, (f"features: {maps.name}; {said} are resized to {maps.side}x{maps.side}",)


def _learnt(
    encoder: FeatureMaps, raw: Tensor, steps: int, generator: Generator, progress: Progress | None
) -> Network:
    """A field that learnt raw maps (N, K, h, w) in float16, whitened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        network = build(replace(NETWORK, shape=tuple(raw.shape[1:])))
    objective = EquilibriumMatching()
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-4)
    for step in range(steps):
        rate = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate * min(1.0, (step + 1) / WARMUP)
        rows = torch.randint(len(raw), (BATCH,), generator=generator)
        loss = objective(network, encoder.white(raw[rows].float()), generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, steps)
    network.half().float()  # float16 holds the weights exactly, so that the folder is small
    return network.eval().requires_grad_(False)


def _white(encoder: FeatureMaps, raw: Tensor) -> Iterator[Tensor]:
    for part in raw.split(64):
        yield encoder.white(part.float())


def _rows(pictures: list[Tensor], rows: Tensor) -> Iterator[Tensor]:
    """The pictures with these numbers, sorted, in batches of one size."""
    start = 0
    for batch in pictures:
        inside = rows[(rows >= start) & (rows < start + len(batch))] - start
        start += len(batch)
        if len(inside):
            yield batch[inside]
