"""Baselines, a caching model and pictures, shared by the benchmarks of anomaly detection."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from skimage import data
from sklearn.ensemble import IsolationForest
from torch import Tensor

import eqm
from eqm.data import DataConfig, Source, open_source
from eqm.features import open_features
from eqm.randomness import SampleRandom

Scorer = Callable[[Tensor], Tensor]
"""One score per picture, higher = more anomalous."""


class Cached:
    """A trained model that caches its outputs, so that scores share evaluations."""

    def __init__(self, name: str | Path) -> None:
        self.model = eqm.from_pretrained(name).requires_grad_(False)
        self.config, self.metadata = self.model.config, self.model.metadata
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, x: Tensor, labels: Tensor | None, *gamma: Tensor) -> Tensor:
        key = sha256(x.contiguous().numpy().data)
        key.update(b"".join(level.numpy().tobytes() for level in gamma))
        if key.digest() not in self.known:
            with torch.no_grad():
                self.known[key.digest()] = self.model(x, labels, *gamma)
        return self.known[key.digest()]


def baselines(known: Tensor) -> dict[str, Scorer]:
    """Scores from pixels, fitted on training pictures (N, C, H, W)."""
    rows = known.flatten(1)
    mean = rows.mean(0)
    components = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:64]  # (64, D)
    forest = IsolationForest(random_state=0).fit(rows.numpy())

    def reconstruction_error(x: Tensor) -> Tensor:
        centred = x.flatten(1) - mean
        return (centred - centred @ components.T @ components).norm(dim=1)

    return {
        "64 principal components": reconstruction_error,
        "Isolation Forest": lambda x: torch.from_numpy(-forest.score_samples(x.flatten(1).numpy())),
        "5th nearest in pixels": partial(nearest, rows, torch.nn.Flatten()),
    }


def nearest(known: Tensor, describe: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The distance of each picture to its fifth nearest neighbour in `known` (N, D)."""
    return torch.cdist(describe(x), known).kthvalue(min(5, len(known)), dim=1).values


def nearest_in(features: str, known: Tensor) -> Scorer | None:
    """`nearest` in the features of that name; None, with a message, if they cannot be opened."""
    try:
        network = open_features(features)
    except ValueError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return None

    def describe(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(batch).vector for batch in x.split(64)])

    return partial(nearest, describe(known), describe)


def faces() -> np.ndarray:
    """The faces of scikit-image's `lfw_subset`, (100, 25, 25) in 0..1; its other half has no faces."""
    return data.lfw_subset()[:100]


def rows_of(source: Source, rows: Sequence[int]) -> Tensor:
    """Some rows of a source."""
    chosen = torch.tensor(rows)
    return source.batch(chosen, SampleRandom(0, chosen))


def everything(source: Source) -> Tensor:
    """All pictures of a source."""
    return rows_of(source, range(len(source)))


def some(name: str, count: int) -> Tensor:
    """At most `count` pictures of a data set, a fixed random subset."""
    source = open_source(DataConfig(name))
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    return rows_of(source, order[:count].tolist())
