"""A detector of odd rows in tables: several experts, each on a part of the rows, and their calibration."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from msgspec import Meta
from safetensors.torch import save_file
from torch import Generator, Tensor

from eqm.checks import seeded
from eqm.files import check_folder, make_folder, replacing
from eqm.models import MLPConfig
from eqm.models.network import build
from eqm.schema import convert, read_json, shown
from eqm.tasks.calibration import NONE, Calibration
from eqm.tasks.experts import NARROWEST, PARTS, SHARE, Columns, Expert
from eqm.tensor_files import read_tensors

LEARNT = 10_000
"""At most so many rows are learnt, a random choice of larger tables."""
ROWS = 1024
"""Rows that are scored at once."""
FORMAT, VERSION = "eqm-outliers", 2
_SETTINGS, _TENSORS = "outliers.json", "outliers.safetensors"


@dataclass(frozen=True)
class _Stored:
    """The content of outliers.json."""

    experts: Annotated[int, Meta(ge=1, le=100)]
    network: MLPConfig
    estimator: dict[str, Any]


@dataclass(frozen=True, eq=False)
class TableDetector:
    """Scores rows of a table, higher = more anomalous; it learnt rows that are normal, most of them.

    The rows are divided into PARTS parts, and an expert for each part learns all others. Each expert measures
    several logarithms for a row (`Expert.logs`); a new row gets their means over the experts. They are
    standardised on the learnt rows, each measured by the one expert that did not learn it.
    The learnt rows are ranked by the same expert (cross-conformal prediction, Vovk 2015), so that p-values
    need no further rows.
    """

    columns: Columns
    experts: tuple[Expert, ...]
    usual: Tensor
    """Means and standard deviations of the logarithms of the learnt rows, (2, M)."""
    calibration: Calibration
    """The scores of the learnt rows, each by the expert that did not learn it."""
    scores: Tensor
    """The scores of the learnt rows as if they were new, (N,), sorted."""

    @classmethod
    def of(cls, rows: np.ndarray, *, steps: int, seed: int, contamination: float = 0.0) -> Self:
        """A detector that learnt rows (N, D) in float64, some values missing (NaN), with a share
        `contamination` of anomalies among them."""
        generator = seeded(seed)
        chosen = torch.randperm(len(rows), generator=generator)[:LEARNT].numpy()
        columns = Columns.of(rows[chosen])
        known = columns.scaled(rows[chosen])
        experts, logs = _taught(known, steps, generator, contamination)
        usual = torch.stack([logs.mean(0), logs.std(0, correction=0).clamp(min=NARROWEST)])
        nothing = Calibration(NONE, NONE, NONE[:, None], NONE)
        detector = cls(columns, experts, usual, nothing, NONE)
        ranked = replace(nothing, scores=detector._score(logs).sort().values)
        every = torch.cat([detector._measure(batch) for batch in known.split(ROWS)])
        return replace(detector, calibration=ranked, scores=every.sort().values)

    def score_samples(self, rows: np.ndarray) -> Tensor:
        """The score of each row of (N, D), (N,) in float64: higher = more anomalous, 0 = as usual."""
        return self._of_batches(rows, self._measure)

    def _measure(self, rows: Tensor) -> Tensor:
        return self._score(torch.stack([expert.logs(rows) for expert in self.experts]).mean(0))

    def _score(self, logs: Tensor) -> Tensor:
        """The score of rows from their logarithms (B, M), (B,): a row is odd if its residuals or its
        distances are."""
        gammas = len(self.experts[0].gammas)
        away = (logs - self.usual[0]) / self.usual[1]
        residuals, distances = away[:, :gammas].mean(1), away[:, gammas:].mean(1)
        score = torch.logaddexp(residuals + math.log(SHARE), distances + math.log(1 - SHARE))
        return score.round(decimals=4)

    def p_values_of(self, scores: Tensor) -> Tensor:
        """The conformal p-values of scores (N,) from `score_samples`."""
        return self.calibration.p_values(scores)

    def attributions(self, rows: np.ndarray) -> Tensor:
        """How anomalous each value of rows (N, D) is, (N, D): 1 is the mean of the learnt rows."""
        return self._of_batches(
            rows, lambda batch: torch.stack([each.columns(batch) for each in self.experts]).mean(0)
        )

    def _of_batches(self, rows: np.ndarray, function: Callable[[Tensor], Tensor]) -> Tensor:
        starts = range(0, len(rows), ROWS)
        return torch.cat(
            [function(self.columns.scaled(rows[start : start + ROWS])) for start in starts]
        )

    def save(self, folder: str | os.PathLike[str], estimator: Mapping[str, Any]) -> None:
        """Returns nothing; writes outliers.json and outliers.safetensors into `folder`, which is new, empty
        or of such a detector. `estimator` is kept for `load`."""
        folder = Path(folder)
        settings = {
            "format": FORMAT,
            "version": VERSION,
            "experts": len(self.experts),
            "network": asdict(self.experts[0].network.config),
            "estimator": dict(estimator),
        }
        tensors = {**vars(self.columns), "usual": self.usual, "scores": self.scores}
        tensors["ranked"] = self.calibration.scores
        for number, expert in enumerate(self.experts):
            for name, weight in expert.network.state_dict().items():
                tensors[f"{number}.network.{name}"] = weight
            for name in Expert.statistics():
                tensors[f"{number}.{name}"] = getattr(expert, name)
        check_folder(folder, FORMAT, name="folder")
        make_folder(folder)
        with replacing(folder / _SETTINGS) as words, replacing(folder / _TENSORS) as path:
            words.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> tuple[Self, dict[str, Any]]:
        """The detector that `save` wrote, and the `estimator` given to it.

        Raises ValueError if there is none, or it is damaged."""
        path, advice = Path(folder) / _SETTINGS, "fit and save it again"
        if not path.is_file():
            raise ValueError(
                f"{folder} must hold a saved detector of tables, {_SETTINGS}; it does not: {advice}"
            )
        found = read_json(path, dict[str, Any], advice=advice)
        if (found.pop("format", ""), version := found.pop("version", 0)) != (FORMAT, VERSION):
            raise ValueError(
                f"{path} must be a detector of tables of version {VERSION}; got {shown(version)}: {advice}"
            )
        stored: _Stored = convert(found, _Stored, f"{path}: ", advice=advice)
        tensors = read_tensors(path.with_name(_TENSORS), advice=advice)
        try:
            experts = tuple(_expert(stored.network, tensors, k) for k in range(stored.experts))
            columns = Columns(*(tensors[field.name] for field in fields(Columns)))
            ranked = Calibration(tensors["ranked"], NONE, NONE[:, None], NONE)
            detector = cls(columns, experts, tensors["usual"], ranked, tensors["scores"])
            detector.score_samples(np.zeros((1, *stored.network.shape)))  # raises if shapes differ
        except (KeyError, RuntimeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the detector in {folder} is damaged ({reason}): {advice}") from error
        return detector, stored.estimator


def _taught(
    rows: Tensor, steps: int, generator: Generator, contamination: float
) -> tuple[tuple[Expert, ...], Tensor]:
    """An expert for each part of scaled rows (N, 2, D), and the logarithms of each row by the one that did
    not learn it, (N, M)."""
    experts, logs = [], list[Tensor]()
    order = torch.randperm(len(rows), generator=generator)
    for part in order.tensor_split(PARTS):
        others = torch.ones(len(rows), dtype=torch.bool).index_fill(0, part, False)
        expert = Expert.of(rows[others], steps, generator, contamination)
        logs += [expert.logs(rows[batch]) for batch in part.split(ROWS)]
        experts.append(expert)
    return tuple(experts), torch.cat(logs)[order.argsort()]


def _expert(config: MLPConfig, tensors: Mapping[str, Tensor], number: int) -> Expert:
    start = f"{number}.network."
    weights = {name[len(start) :]: tensors[name] for name in tensors if name.startswith(start)}
    network = build(config).eval().requires_grad_(False)
    network.load_state_dict(weights)
    return Expert(network, **{name: tensors[f"{number}.{name}"] for name in Expert.statistics()})
