"""A small network learns the field of points in the plane, for the landscape of the page."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.checks import check_batch
from eqm.corruption import Decay
from eqm.models import MLPConfig, build
from eqm.objective import EquilibriumMatching

BATCH, STEPS = 256, 2000
"""About 6 s of one core."""
REPORTS = 20
HIGHEST_RATE = 1e-2
"""Highest learning rate. It rises in 50 steps and falls to 0 as a cosine."""
NETWORK = MLPConfig(shape=(2,), width=64, depth=2)


@dataclass(frozen=True)
class LearnedField:
    """The field of the network after some training."""

    images: int
    """Noisy points seen so far."""
    total: int
    """Noisy points to see in all."""
    loss: float
    """Mean loss since the last report."""
    gradient: Tensor
    """The field on the grid, (side, side, 2), from below and from the left."""
    seconds: float
    """Time since the start."""


def learn(points: Tensor, decay: Decay, *, extent: float, side: int) -> Iterator[LearnedField]:
    """The field that a small network learns from `points` (N, 2), reported 20 times on the way.

    The grid covers -extent..extent in both directions with `side` nodes. The result depends on the arguments
    alone. It takes about 6 s of one core.

    Raises ValueError for points that are not finite.
    """
    from eqm.train.ema import (
        update_average,  # loads torch.distributed, for which a server need not wait
    )

    check_batch(None, "(N, 2)", points=points)
    if not torch.isfinite(points).all():
        raise ValueError("points must be finite numbers")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # for the first weights
        network = build(NETWORK)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.0)
    objective = EquilibriumMatching(decay)
    ticks = torch.linspace(-extent, extent, side)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    grid = torch.stack([x, y], dim=-1).view(-1, 2)
    begun, total = time.monotonic(), torch.zeros(())
    every = STEPS // REPORTS
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = (
                HIGHEST_RATE * min(1, step / 50) * (1 + math.cos(math.pi * step / STEPS)) / 2
            )
        rows = torch.randint(len(points), (BATCH,), generator=generator)
        loss = objective(network, points[rows], generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update_average(average, network, images=step * BATCH, batch=BATCH, halflife=50 * BATCH)
        total += loss.detach()
        if step % every == 0:
            with torch.no_grad():
                gradient = average(grid).view(side, side, 2)
            seconds = time.monotonic() - begun
            yield LearnedField(step * BATCH, STEPS * BATCH, float(total) / every, gradient, seconds)
            total.zero_()
