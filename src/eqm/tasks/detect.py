"""Whether an image is one of those that a field was made of: scores that are calibrated decide."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from eqm.descent.checks import check_count
from eqm.field import Field
from eqm.files import replacing
from eqm.models import from_pretrained
from eqm.tasks.sampling import Sampling
from eqm.tasks.scores import SCORES, Probe, _decay, matching_error

__all__ = ["Calibration", "EqmDetector", "matching_error"]

COMBINED = ("residuals",)
"""What the score "combined" is made of."""
MAPPED = 256
"""Normal images that say what an anomaly map is measured by."""
_TENSORS, _SETTINGS, _VERSION = "detector.safetensors", "detector.json", 1


@dataclass(frozen=True)
class Calibration:
    """What normal images taught a detector."""

    scores: Tensor
    """Their scores, rising, (N,): what p-values and thresholds are read from."""
    centre: Tensor
    """Where their vectors of scores lie, (K,), and how wide, `spread` (K,)."""
    spread: Tensor
    precision: Tensor
    """Inverse covariance (K, K) of what is left; none of the three is used where K is 1."""
    expected: Tensor
    """Their mean squared residual, channels summed, (H, W); empty for what is no image."""


@dataclass(frozen=True, eq=False)
class EqmDetector:
    """Scores images by a field, higher = more anomalous, and decides once it has seen normal ones.

    `score` is a name of `eqm.tasks.scores.SCORES`, or several of them, or "combined", the best. One
    number an image is its score as it is. Of several, `fit` learns the mean and the covariance on
    normal images, and the score is the squared Mahalanobis distance to that mean: an image whose
    loss is unusually low, or high at one noise level and low at another, is no more typical than
    one whose loss is high.

    Nothing is trained, and no anomalous image is needed. Settings are frozen; `fit` sets
    `calibration` alone.

    >>> field = lambda x, labels: 4 * x  # made of images of one value
    >>> normal = 0.1 * torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> detector = EqmDetector(field, score="gradient-norm").fit(normal)
    >>> detector.predict(torch.cat([normal[:1], normal[:1] + 1]))
    tensor([False,  True])
    """

    field: Field
    score: str | tuple[str, ...] = "combined"
    fpr: float = 0.05
    """The rate of false alarms that `predict` and `decision_function` allow."""
    probe: Probe | None = None
    """What the field is asked; by default what suits it, `Probe.of(field)`."""
    complexity: bool = False
    """Correct for how simple an image is: add the score `complexity`."""
    batch_size: int = 256
    """Images that the field is given at a time; memory does not grow with their number."""
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        check_count(batch_size=self.batch_size)
        _check_rate(self.fpr)
        unknown = [name for name in self.names if name not in SCORES]
        if unknown or not self.names:
            raise ValueError(
                f"score must be combined or among {', '.join(SCORES)}; got {self.score!r}"
            )
        if self.probe is None:
            object.__setattr__(self, "probe", Probe.of(self.field))
        if "energy" in self.names and not hasattr(self.field, "energy"):
            SCORES["energy"](self.field, torch.empty(0), None, self._probe)

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that count."""
        named = (self.score,) if isinstance(self.score, str) else tuple(self.score)
        named = COMBINED if named == ("combined",) else named
        return (*named, "complexity") if self.complexity else named

    def fit(self, images: Tensor | Iterable[Tensor], labels: Tensor | None = None) -> Self:
        """The detector itself, calibrated on normal images (N, C, H, W), or batches of them.

        They should not be images that the field was trained on, whose scores are lower. Where there
        are several numbers an image, one half tells what is typical and the other, at random, how
        typical normal images are: so that p-values hold for new ones.

        Raises ValueError for images that do not suit the field, for too few, and for `labels` (N,)
        that the model does not have.
        """
        vectors, first = [], []
        for batch, part in self._batches(images, labels):
            vectors.append(self._vectors(batch, part))
            if sum(map(len, first)) < MAPPED:
                first.append(self._errors(batch, part))
        if not vectors or sum(map(len, vectors)) < 4:
            raise ValueError(
                f"calibration needs normal images, 4 at least and better 1,000; got {sum(map(len, vectors))}"
            )
        found = torch.cat(vectors)  # (N, K)
        if not found.isfinite().all():
            raise ValueError(
                "a normal image has a score that is not finite: the field is damaged, or its descent "
                "diverges; check the weights, or take a smaller sampling.step_size"
            )
        expected = torch.cat(first).double().mean(0)
        none = found.new_zeros(found.shape[1])
        empty = Calibration(none[:0], none, none + 1, torch.eye(len(none)).to(none), expected)
        if found.shape[1] > 1:
            order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
            typical, found = found[order].tensor_split(2)
            empty = replace(empty, **_gaussian(typical))
        scores = _distance(found, empty).sort().values
        object.__setattr__(self, "calibration", replace(empty, scores=scores))
        return self

    def score_samples(
        self, images: Tensor | Iterable[Tensor], labels: Tensor | None = None
    ) -> Tensor:
        """The score of each image, (N,) float64 on the CPU: higher = more anomalous.

        A score that is one number an image needs no `fit`. What is not finite is infinity.

        Raises ValueError as `fit` does, and where a calibration is needed.
        """
        scores = [self._score(batch, part) for batch, part in self._batches(images, labels)]
        return torch.cat(scores) if scores else torch.zeros(0, dtype=torch.float64)

    def p_values(self, images: Tensor | Iterable[Tensor], labels: Tensor | None = None) -> Tensor:
        """The conformal p-value of each image, (N,), in 1/(n+1)..1: low = anomalous.

        (1 + #{calibration scores at least as high}) / (n + 1): of new normal images a share of at
        most p has a p-value of p or less, whatever the score and the data, as long as they come
        from where the calibration images came from (Vovk et al., Algorithmic learning in a random
        world, 2005; for outliers Bates et al., arXiv 2104.08279).
        """
        return self._p_values(self.score_samples(images, labels))

    def predict(
        self,
        images: Tensor | Iterable[Tensor],
        labels: Tensor | None = None,
        *,
        fpr: float | None = None,
    ) -> Tensor:
        """True (N,) for anomalous images, at a rate of false alarms of at most `fpr`.

        Raises ValueError where the calibration is of too few images for that rate.
        """
        return self.score_samples(images, labels) > self.threshold(fpr)

    def decision_function(
        self,
        images: Tensor | Iterable[Tensor],
        labels: Tensor | None = None,
        *,
        fpr: float | None = None,
    ) -> Tensor:
        """The score less the threshold, (N,): anomalous images are above 0."""
        return self.score_samples(images, labels) - self.threshold(fpr)

    def threshold(self, fpr: float | None = None) -> float:
        """The score above which an image is anomalous: its p-value is `fpr` or less.

        Raises ValueError as `predict` does."""
        fpr = self.fpr if fpr is None else fpr
        _check_rate(fpr)
        scores = self._fitted().scores
        allowed = math.floor(round(fpr * (len(scores) + 1), 9))
        if allowed < 1:
            raise ValueError(
                f"a rate of false alarms of {fpr:g} needs scores of {math.ceil(1 / fpr) - 1:,} normal "
                f"images; {len(scores):,} are there: calibrate with more, or allow a higher rate"
            )
        return float(scores[-allowed])

    @torch.no_grad()
    def anomaly_map(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """How anomalous each pixel is, (B, H, W): 1 = as normal images are there.

        The squared residual of the field, the mean over gammas, draws and 3x3 pixels, by what it is
        on normal images. It is the same for every `score`.
        """
        expected = self._fitted().expected
        if expected.ndim != 2:
            raise ValueError("an anomaly map is one of images (B, C, H, W); these are none")
        maps = [self._errors(batch, part) for batch, part in self._batches(images, labels)]
        return _smooth(torch.cat(maps)) / (_smooth(expected.float()[None]) + 1e-8)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Returns nothing; writes detector.safetensors and detector.json into `folder`, which may be
        that of the model.

        Raises ValueError for a detector that was not calibrated."""
        calibration, probe = self._fitted(), self._probe
        decay = probe.objective.decay
        settings = {
            "format": "eqm-detector",
            "version": _VERSION,
            "score": self.score,
            "fpr": self.fpr,
            "complexity": self.complexity,
            "threshold": None if len(calibration.scores) + 1 < 1 / self.fpr else self.threshold(),
            "probe": {"gammas": probe.gammas, "draws": probe.draws, "seed": probe.seed},
            "sampling": asdict(probe.sampling),
            "training": {
                "objective.decay": type(decay).__name__.removesuffix("Decay").lower(),
                **{f"objective.{name}": value for name, value in vars(decay).items()},
            },
        }
        tensors = {name: tensor.contiguous() for name, tensor in vars(calibration).items()}
        folder = Path(folder)
        with replacing(folder / _TENSORS) as path, replacing(folder / _SETTINGS) as words:
            words.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            save_file(tensors, path)
