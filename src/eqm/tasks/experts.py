"""Odd rows of a table: small fields learn the rows, and what they get wrong is measured jointly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Generator, Tensor

from eqm.models import MLPConfig, Network
from eqm.models.network import build
from eqm.objective import EquilibriumMatching

GAMMAS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Noise levels of the residuals, each with one noise sample, which is the same for all rows."""
PARTS = 3
"""The rows are divided into so many parts; a field for each part learns all other rows."""
BATCH = 128
"""Rows in one training step."""
STEPS = 700
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
"""The distances to the mean of so many nearest rows count beside the residuals."""
SHARE = 0.4
"""The share of the residuals in the score; the rest is that of the distances."""
BRIEF = 1 / 3
"""The share of the training steps for rows with anomalies among them."""
STRAIGHT = 3.0
"""Values further from the middle of their column, in widths, are drawn in by a logarithm."""
TINY = 1e-9
NARROWEST = 0.02
"""The least standard deviation of logarithms; that of rounding errors, if all rows are equal, is less."""
EQUAL = 1e-12
"""Rows are equal if their squared distance, in widths and for each column, is smaller."""
_OBJECTIVE = EquilibriumMatching()


@dataclass(frozen=True, eq=False)
class Columns:
    """A robust scale for each of D columns."""

    middle: Tensor
    """The medians, (D,)."""
    width: Tensor
    """The standard deviation that the quartiles tell, or that of the column if they are equal, (D,)."""

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        """The scale of rows (N, D) in float64; missing values are NaN."""
        rows = np.where(np.isnan(rows).all(0), 0.0, rows)
        low, middle, high = np.nanquantile(rows, [0.25, 0.5, 0.75], axis=0)
        spread, quartiles = np.nanstd(rows, axis=0), (high - low) / 1.349
        width = np.where(quartiles > 1e-3 * spread, np.maximum(quartiles, 0.2 * spread), spread)
        least = 1e-3 * (np.abs(middle) + TINY)  # of a column that is constant
        width = np.where(spread > TINY * np.abs(middle), width, least)
        return cls(torch.from_numpy(middle), torch.from_numpy(width))

    def scaled(self, rows: np.ndarray) -> Tensor:
        """Rows (N, D) in widths from the middle, float32; a missing value is in the middle."""
        away = (rows - self.middle.numpy()) / self.width.numpy()
        away = torch.from_numpy(np.nan_to_num(away, nan=0.0))
        beyond = (away.abs() - STRAIGHT).clamp(min=0)
        return (away.sign() * (away.abs() - beyond + beyond.log1p())).float()


@dataclass(frozen=True, eq=False)
class Expert:
    """A field that learnt rows, and the statistics of what it gets wrong on them.

    A residual is the field's output minus the target of the training loss, at each of K gammas.
    """

    network: Network
    noise: Tensor
    """The noise samples, (K, D)."""
    centre: Tensor
    """The mean residuals, (K, D)."""
    root: Tensor
    """The inverse square roots of their covariances, (K, D, D), or variances, (K, D) or (K, 1)."""
    rows: Tensor
    """The rows it learnt, (N, D)."""
    usual: Tensor
    """Means and standard deviations of what `_logs` finds on these rows, (2, K + len(NEAREST))."""
    share: Tensor
    """The share of the residuals in the score, a number; the rest is that of the distances."""

    @staticmethod
    def statistics() -> tuple[str, ...]:
        """The names of its tensors beside the network."""
        return "noise", "centre", "root", "rows", "usual", "share"

    @classmethod
    def of(cls, rows: Tensor, steps: int, generator: Generator, *, spoilt: bool = False) -> Self:
        """An expert on scaled rows (N, D).

        `spoilt` are rows with anomalies among them: the expert learns briefly, and only the size of its
        residuals counts. Neighbours and covariances would be those of anomalies too."""
        if spoilt:
            steps = math.ceil(steps * BRIEF)
        network = learn(rows, steps, generator)
        noise = torch.randn(len(GAMMAS), rows.shape[1], generator=generator)
        nothing = torch.zeros(0)
        share = torch.tensor(1.0 if spoilt else SHARE)
        expert = cls(network, noise, torch.zeros_like(noise), nothing, rows, nothing, share)
        residuals = [expert.residuals(rows, k) for k in range(len(noise))]
        if spoilt:
            centre = expert.centre
            root = torch.stack([r.square().mean().add(TINY).rsqrt()[None] for r in residuals])
        else:
            centre = torch.stack([residual.mean(0) for residual in residuals])
            root = torch.stack([_inverse_root(residual) for residual in residuals])
        expert = replace(expert, centre=centre, root=root)
        logs = expert._logs(rows)
        spread = logs.std(0, correction=0).clamp(min=NARROWEST)
        return replace(expert, usual=torch.stack([logs.mean(0), spread]))

    def score(self, rows: Tensor) -> Tensor:
        """How odd each scaled row is, (B,) in float64: 0 is the mean of the rows it learnt."""
        logs = (self._logs(rows) - self.usual[0]) / self.usual[1]
        residuals, distances = logs.split([len(self.noise), len(NEAREST)], 1)
        score = self.share * residuals.mean(1) + (1 - self.share) * distances.mean(1)
        return score.double().round(decimals=4)

    def columns(self, rows: Tensor) -> Tensor:
        """How odd each value is, (B, D): its share of the residuals' squared distances, 1 = as usual."""
        return torch.stack([self._white(rows, k).square() for k in range(len(self.noise))]).mean(0)

    @torch.no_grad()
    def residuals(self, rows: Tensor, k: int) -> Tensor:
        """What the field gets wrong on scaled rows, (B, D), at the gamma k."""
        gamma = torch.tensor([GAMMAS[k]])
        decay, noise = float(_OBJECTIVE.decay(gamma)), self.noise[k]
        found = self.network(gamma * rows + (1 - gamma) * noise)
        return found - (noise - rows) * decay

    def _white(self, rows: Tensor, k: int) -> Tensor:
        away, root = self.residuals(rows, k) - self.centre[k], self.root[k]
        return away @ root if root.ndim == 2 else away * root

    def _logs(self, rows: Tensor) -> Tensor:
        """Logarithms of squared distances, (B, K + len(NEAREST)): of the K residuals, and to neighbours."""
        found = [self._white(rows, k).square().mean(1) for k in range(len(self.noise))]
        residuals, distances = torch.stack(found, 1), torch.stack(self._distances(rows), 1)
        return torch.cat([residuals + 1e-4, distances + 1e-6], 1).log()

    def _distances(self, rows: Tensor) -> list[Tensor]:
        """The squared distance to the mean of the nearest learnt rows, for each of NEAREST, (B,).

        This is the step of the optimal field (`eqm.optimal`) close to the data. Of the learnt rows equal to
        a row one is left out: so a row that was learnt is not its own neighbour."""
        squares = torch.cdist(rows.double(), self.rows.double()).square() / rows.shape[1]
        most = min(max(NEAREST) + 1, len(self.rows))
        values, order = squares.topk(most, largest=False)
        equal = (values[:, :1] < EQUAL) & (most > 1)
        near = torch.where(equal, order.roll(-1, 1), order)  # the equal row is now the last one
        found = []
        for count in NEAREST:
            mean = self.rows[near[:, : min(count, max(most - 1, 1))]].mean(1)
            found.append((rows - mean).square().mean(1))
        return found


def learn(rows: Tensor, steps: int, generator: Generator) -> Network:
    """A field that learnt scaled rows (N, D)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        network = build(replace(SIZE, shape=(rows.shape[1],)))
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-4)
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
