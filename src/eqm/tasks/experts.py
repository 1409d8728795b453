"""Odd rows of a table: small fields learn the rows; what they get wrong, and what lies near, is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Generator, Tensor

from eqm.models import MLPConfig, Network
from eqm.models.network import build
from eqm.objective import EquilibriumMatching

GAMMAS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Noise levels of the residuals, each with one noise sample, which is the same for all rows."""
LATE = (0.9, 0.95, 1.0)
"""Those for rows with anomalies among them."""
PARTS = 3
"""The rows are divided into so many parts; a field for each part learns all other rows."""
BATCH = 128
"""Rows in one training step."""
STEPS = 400
"""Training steps of each field."""
LEARNING_RATE = 2e-3
"""Of AdamW; it rises for WARMUP steps and then falls to 0 as a half cosine."""
WARMUP = 50
SIZE = MLPConfig(width=128, depth=3)
"""The field; the shape is that of a row."""
SHRUNK = 0.02
"""The share of a round covariance in that of the residuals."""
WIDEST = 256
"""Residuals of more columns have variances, but no covariances."""
NEAREST = (1, 3, 10)
"""The distances to the mean of so many nearest rows count beside the residuals, in two scales."""
FEWEST = 10
"""With anomalies among the rows, at least the tenth nearest row counts."""
SHARE = 0.2
"""The share of the residuals in the score; the rest is that of the distances."""
BRIEF = 0.6
"""The share of the training steps for rows with anomalies among them."""
STRAIGHT = 3.0
"""Values further from the middle of their column, in widths, are drawn in by a logarithm."""
FARTHEST = 1e6
"""The largest standardised value."""
TINY = 1e-9
NARROWEST = 0.02
"""The least standard deviation of logarithms; that of rounding errors, if all rows are equal, is less."""
EQUAL = 1e-6
"""Rows are equal if their distance, for each column, is smaller."""
_OBJECTIVE = EquilibriumMatching()


@dataclass(frozen=True, eq=False)
class Columns:
    """Two scales for each of D columns: a robust one, and mean 0 with variance 1."""

    middle: Tensor
    """The medians, (D,)."""
    width: Tensor
    """The standard deviation that the quartiles tell, or that of the column if they are equal, (D,)."""
    mean: Tensor
    """(D,)"""
    spread: Tensor
    """The standard deviation, (D,)."""

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        """The scales of rows (N, D) in float64; missing values are NaN."""
        rows = np.where(np.isnan(rows).all(0), 0.0, rows)
        low, middle, high = np.nanquantile(rows, [0.25, 0.5, 0.75], axis=0)
        mean, spread, quartiles = np.nanmean(rows, 0), np.nanstd(rows, 0), (high - low) / 1.349
        width = np.where(quartiles > 1e-3 * spread, np.maximum(quartiles, 0.2 * spread), spread)
        varies = spread > TINY * np.abs(middle)
        least = 1e-3 * (np.abs(middle) + TINY)  # of a column that is constant
        width, spread = (np.where(varies, each, least) for each in (width, spread))
        return cls(*map(torch.from_numpy, (middle, width, mean, spread)))

    def scaled(self, rows: np.ndarray) -> Tensor:
        """Rows (N, D) in both scales, (N, 2, D) in float32. A missing value is the median or the mean."""
        away = (rows - self.middle.numpy()) / self.width.numpy()
        away = torch.from_numpy(np.nan_to_num(away, nan=0.0))
        beyond = (away.abs() - STRAIGHT).clamp(min=0)
        robust = away.sign() * (away.abs() - beyond + beyond.log1p())
        plain = np.nan_to_num((rows - self.mean.numpy()) / self.spread.numpy(), nan=0.0)
        return torch.stack([robust, torch.from_numpy(plain).clamp(-FARTHEST, FARTHEST)], 1).float()


@dataclass(frozen=True, eq=False)
class Expert:
    """A field that learnt rows in the robust scale, the statistics of what it gets wrong on them, and the rows.

    A residual is the field's output minus the target of the training loss, at each of K gammas.
    """

    network: Network
    gammas: Tensor
    """(K,)"""
    noise: Tensor
    """The noise samples, (K, D)."""
    centre: Tensor
    """The mean residuals, (K, D)."""
    root: Tensor
    """The inverse square roots of their covariances, (K, D, D), or variances, (K, D) or (K, 1)."""
    rows: Tensor
    """The rows it learnt, (N, 2, D)."""
    contamination: Tensor
    """The share of anomalies among them, a number."""

    @staticmethod
    def statistics() -> tuple[str, ...]:
        """The names of its tensors beside the network."""
        return "gammas", "noise", "centre", "root", "rows", "contamination"

    @classmethod
    def of(cls, rows: Tensor, steps: int, generator: Generator, contamination: float) -> Self:
        """An expert on scaled rows (N, 2, D), a share `contamination` of which may be anomalies.

        If it is not 0, the expert learns briefly, and only the size of its residuals counts: their
        covariance would be that of anomalies too."""
        if contamination:
            steps = math.ceil(steps * BRIEF)
        network = learn(rows[:, 0], steps, generator)
        gammas = torch.tensor(LATE if contamination else GAMMAS)
        noise = torch.randn(len(gammas), rows.shape[2], generator=generator)
        nothing, share = torch.zeros_like(noise), torch.tensor(contamination)
        expert = cls(network, gammas, noise, nothing, nothing, rows, share)
        residuals = [expert.residuals(rows, k) for k in range(len(noise))]
        if contamination:
            root = torch.stack([r.square().mean().add(TINY).rsqrt()[None] for r in residuals])
            return replace(expert, root=root)
        centre = torch.stack([residual.mean(0) for residual in residuals])
        root = torch.stack([_inverse_root(residual) for residual in residuals])
        return replace(expert, centre=centre, root=root)

    def logs(self, rows: Tensor) -> Tensor:
        """Logarithms for scaled rows (B, 2, D): of the size of the K residuals, and of distances, (B, K + M)."""
        found = [self._white(rows, k).square().mean(1) for k in range(len(self.noise))]
        if float(self.contamination):
            distances = [self._distance_to_one(rows).square()]
        else:
            distances = [each for scale in (0, 1) for each in self._distances_to_means(rows, scale)]
        found = [each.double() + 1e-4 for each in found] + [each + 1e-6 for each in distances]
        return torch.stack(found, 1).log()

    def columns(self, rows: Tensor) -> Tensor:
        """How odd each value is, (B, D): its share of the residuals' squared distances, 1 = as usual."""
        return torch.stack([self._white(rows, k).square() for k in range(len(self.noise))]).mean(0)

    @torch.no_grad()
    def residuals(self, rows: Tensor, k: int) -> Tensor:
        """What the field gets wrong on scaled rows (B, 2, D), (B, D), at the gamma k."""
        rows, gamma, noise = rows[:, 0], self.gammas[k], self.noise[k]
        found = self.network(gamma * rows + (1 - gamma) * noise)
        return found - (noise - rows) * float(_OBJECTIVE.decay(gamma[None]))

    def _white(self, rows: Tensor, k: int) -> Tensor:
        away, root = self.residuals(rows, k) - self.centre[k], self.root[k]
        return away @ root if root.ndim == 2 else away * root

    def _distances_to_means(self, rows: Tensor, scale: int) -> list[Tensor]:
        """The squared distance to the mean of the nearest learnt rows, for each of NEAREST, (B,).

        This is the step of the optimal field (`eqm.optimal`) close to the data."""
        _, near = self._neighbours(rows, scale, max(NEAREST))
        rows, learnt = rows[:, scale].double(), self.rows[:, scale].double()
        means = [learnt[near[:, :count]].mean(1) for count in NEAREST]
        return [(rows - mean).square().mean(1) for mean in means]

    def _distance_to_one(self, rows: Tensor) -> Tensor:
        """The distance to the learnt row after which no more anomalies can be near, (B,).

        Anomalies that are alike lie close to each other, but there are no more of them than the
        contamination says."""
        count = math.ceil(float(self.contamination) * len(self.rows))
        return self._neighbours(rows, 0, max(count, FEWEST))[0][:, -1]

    def _neighbours(self, rows: Tensor, scale: int, count: int) -> tuple[Tensor, Tensor]:
        """The distances to the `count` nearest learnt rows, for each column, and their numbers, (B, count).

        Of the learnt rows equal to a row one is left out: so a row that was learnt is not its own
        neighbour. There are fewer if fewer rows were learnt."""
        most = min(count + 1, len(self.rows))
        found = self._search[scale].kneighbors(rows[:, scale].double().numpy(), most)
        distances, order = (torch.from_numpy(each) for each in found)
        distances = distances / math.sqrt(rows.shape[2])
        equal = distances[:, :1] < EQUAL
        ends = [(each[:, 1:], each[:, : most - 1]) for each in (distances, order)]
        if most == 1:
            return distances, order
        distances, order = (torch.where(equal, later, sooner) for later, sooner in ends)
        return distances, order

    @cached_property
    def _search(self) -> list[Any]:
        from sklearn.neighbors import NearestNeighbors

        return [NearestNeighbors().fit(self.rows[:, scale].double().numpy()) for scale in (0, 1)]


def learn(rows: Tensor, steps: int, generator: Generator) -> Network:
    """A field that learnt scaled rows (N, D)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        network = build(replace(SIZE, shape=(rows.shape[1],)))
    optimizer = torch.optim.AdamW(
        network.parameters(), LEARNING_RATE, weight_decay=1e-4, fused=True
    )
    for step in range(steps):
        rate = 0.5 + 0.5 * float(np.cos(np.pi * step / steps))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate * min(1.0, (step + 1) / WARMUP)
        batch = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        loss = _OBJECTIVE(network, batch, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


def _inverse_root(residuals: Tensor) -> Tensor:
    """The symmetric inverse square root (D, D) of their covariance, or of their variances (D,)."""
    variances = residuals.var(0, correction=0)
    level = max(float(variances.mean()), 1e-4)  # all rows may be equal
    if len(variances) > WIDEST:
        return ((1 - SHRUNK) * variances + SHRUNK * level).rsqrt()
    covariance = torch.cov(residuals.T.double(), correction=0).view(len(variances), -1)
    round_ = SHRUNK * level * torch.eye(len(variances), dtype=torch.float64)
    values, vectors = torch.linalg.eigh((1 - SHRUNK) * covariance + round_)
    return ((vectors * values.clamp(min=TINY).rsqrt()) @ vectors.T).float()
