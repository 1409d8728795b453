"""A detector of odd rows in tables: several experts, each on a part of the rows, and their calibration."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
from eqm.tasks.experts import PARTS, Columns, Expert
from eqm.tensor_files import read_tensors

LEARNT = 10_000
"""At most so many rows are learnt, a random choice of larger tables."""
ROWS = 1024
"""Rows that are scored at once."""
FORMAT, VERSION = "eqm-outliers", 1
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

    The rows are divided into PARTS parts, and an expert for each part learns all others. A new row gets
    the mean score of the experts. The learnt rows are ranked by the score of the one expert that did not
    learn them (cross-conformal prediction, Vovk 2015), so that p-values need no further rows.
    """

    columns: Columns
    experts: tuple[Expert, ...]
    calibration: Calibration
    """The scores of the learnt rows, each by the expert that did not learn it."""
    scores: Tensor
    """The scores of the learnt rows as if they were new, (N,), sorted."""

    @classmethod
    def of(cls, rows: np.ndarray, *, steps: int, seed: int, spoilt: bool = False) -> Self:
        """A detector that learnt rows (N, D) in float64, some values missing (NaN), some rows `spoilt`."""
        generator = seeded(seed)
        chosen = torch.randperm(len(rows), generator=generator)[:LEARNT].numpy()
        columns = Columns.of(rows[chosen])
        known = columns.scaled(rows[chosen])
        experts, scores = _taught(known, steps, generator, spoilt)
        calibration = Calibration(scores.sort().values, NONE, NONE[:, None], NONE)
        every = torch.cat([_mean_score(experts, batch) for batch in known.split(ROWS)])
        return cls(columns, experts, calibration, every.sort().values)

    def score_samples(self, rows: np.ndarray) -> Tensor:
        """The score of each row of (N, D), (N,): higher = more anomalous."""
        return self._of_batches(rows, lambda batch: _mean_score(self.experts, batch))

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
        tensors = {**vars(self.columns), "scores": self.scores, "ranked": self.calibration.scores}
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
            columns = Columns(tensors["middle"], tensors["width"])
            ranked = Calibration(tensors["ranked"], NONE, NONE[:, None], NONE)
            detector = cls(columns, experts, ranked, tensors["scores"])
            detector.score_samples(np.zeros((1, *stored.network.shape)))  # raises if shapes differ
        except (KeyError, RuntimeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the detector in {folder} is damaged ({reason}): {advice}") from error
        return detector, stored.estimator


def _taught(
    rows: Tensor, steps: int, generator: Generator, spoilt: bool
) -> tuple[tuple[Expert, ...], Tensor]:
    """An expert for each part of scaled rows (N, D), and the score of each row by the one that did not
    learn it, (N,)."""
    experts, scores = [], torch.zeros(len(rows), dtype=torch.float64)
    for part in torch.randperm(len(rows), generator=generator).tensor_split(PARTS):
        others = torch.ones(len(rows), dtype=torch.bool).index_fill(0, part, False)
        expert = Expert.of(rows[others], steps, generator, spoilt=spoilt)
        for batch in part.split(ROWS):
            scores[batch] = expert.score(rows[batch])
        experts.append(expert)
    return tuple(experts), scores


def _mean_score(experts: tuple[Expert, ...], rows: Tensor) -> Tensor:
    """The mean score of scaled rows (B, D), (B,)."""
    return torch.stack([expert.score(rows) for expert in experts]).mean(0)


def _expert(config: MLPConfig, tensors: Mapping[str, Tensor], number: int) -> Expert:
    start = f"{number}.network."
    weights = {name[len(start) :]: tensors[name] for name in tensors if name.startswith(start)}
    network = build(config).eval().requires_grad_(False)
    network.load_state_dict(weights)
    return Expert(network, **{name: tensors[f"{number}.{name}"] for name in Expert.statistics()})
