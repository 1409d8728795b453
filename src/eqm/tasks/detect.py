"""Anomaly detection: calibrated scores decide whether an image is unlike the training images."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from msgspec import Meta
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, avg_pool2d

from eqm import registry
from eqm.checks import check_count, check_field, check_fraction, check_path, kind_of, warn_of_range
from eqm.field import Field
from eqm.files import check_folder, make_folder, replacing
from eqm.models import from_pretrained
from eqm.models.pretrained import folder_of
from eqm.objective import EquilibriumMatching
from eqm.sampling.labels import Labels, chosen_labels
from eqm.sampling.model import describe
from eqm.sampling.settings import Sampling
from eqm.schema import convert, read_json, shown
from eqm.tasks.calibration import (
    NONE,
    Calibration,
    CalibrationWarning,
    check_rate,
    finite,
    outlyingness,
)
from eqm.tasks.scores import (
    AnySeed,
    Draws,
    Gammas,
    ScoreConfig,
    ScoreContext,
    as_columns,
    check_explicit,
)
from eqm.tensor_files import read_tensors

MAPPED = 256
"""Anomaly maps are relative to the mean error of this many normal images."""
TOLERATED = 0.05
"""The share of clear outliers among normal images that is not worth a warning, at least a few images."""
SLACK = 0.02
"""So much more than the share `contamination` may be left out, as it is known roughly."""
JUDGED = 0.25
"""Of several numbers, anomalies show as clear outliers if they are at most this share of the images."""
TOLERATED_COPIES = 0.01
"""The share of copies among normal images that is not worth a warning."""
_TENSORS, _SETTINGS, _VERSION = "detector.safetensors", "detector.json", 1


@dataclass(frozen=True)
class _Stored:
    """The content of detector.json."""

    score: str | tuple[str, ...]
    fpr: Annotated[float, Meta(gt=0, lt=1)]
    gammas: Gammas
    draws: Draws
    seed: AnySeed
    decay: tuple[str, dict[str, Any]]
    sampling: Sampling
    weights: str | None
    """Their fingerprint; None for a field without weights."""


@dataclass(eq=False)
class EqmDetector:
    """Scores images with a field, higher = more anomalous, and decides after calibration.

    It needs no training and no anomalous images: `fit` only sets `calibration`, from normal images.
    `score` is a registered score, or several of them. A score of one number an image is used as it
    is. Several numbers become one, the squared Mahalanobis distance to their mean on normal images,
    divided by how many they are: an unusually low loss is as anomalous as a high one. "combined"
    adds two such distances: one of the training loss at each gamma and of the image's compressed
    size, and one of the loss in 4x4 cells.

    Raises ValueError for unknown scores, for the score "energy" of an implicit field, and for
    settings out of range.

    >>> field = lambda x, labels: 4 * x  # learnt from images of zeros
    >>> normal = 0.1 * torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> detector = EqmDetector(field, score="gradient-norm").fit(normal)
    >>> detector.predict(torch.cat([normal[:1], normal[:1] + 1]))
    tensor([False,  True])
    """

    field: Field
    score: str | tuple[str, ...] = "combined"
    fpr: float = 0.05
    """The false positive rate that `predict` and `decision_function` allow."""
    config: ScoreConfig | None = None
    """The settings of the score; by default `ScoreConfig.of(field)`."""
    batch_size: int = 256
    """Images in one evaluation of the field."""
    calibration: Calibration | None = None
    contamination: float = 0.0
    """The largest share of the images given to `fit` that may be anomalous."""

    def __post_init__(self) -> None:
        check_count(batch_size=self.batch_size)
        check_rate(self.fpr)
        check_field(self.field)
        if self.config is not None and not isinstance(self.config, ScoreConfig):
            raise ValueError(f"config must be a ScoreConfig; got {kind_of(self.config)}")
        check_fraction(0.5, contamination=self.contamination)
        names = self.score if isinstance(self.score, str | tuple | list) else ()
        listed = [names] if isinstance(names, str) else list(names)
        texts = all(isinstance(name, str) for name in listed)
        if not names or not texts or len(set(listed)) < len(listed):
            raise ValueError(
                f"score must be the name of a score, or several different ones; got {self.score!r}"
            )
        for name in self._scores:
            registry.lookup("score", name)
        if "energy" in self._scores:
            check_explicit(self.field)
        self._shape: tuple[int, ...] | None = None  # of an image given to `fit`

    def fit(self, images: Tensor | Iterable[Tensor], labels: Labels = None) -> Self:
        """The detector itself, calibrated on normal images (N, C, H, W), or batches of them.

        Use images that the field was not trained on: training images have lower scores. If the score
        is several numbers an image, a random half of the images gives their mean and covariance, and
        the other half gives the scores that p-values need. `labels` are one an image or one for all.

        Anomalies among these images raise the threshold, and then other anomalies are missed. With
        `contamination` the clear outliers among the images are left out: those that `outlyingness`
        puts above 1, the highest first, at most that share of all and 2 % more. A normal image that
        is left out raises the false positive rate by up to 1/n.

        Raises ValueError for images of another shape than the model's, fewer than four images, and
        labels that the model does not have. Warns with `CalibrationWarning`, which says what to do, of
        copies among the images, of more than 5 % of clear outliers that are not left out, of a
        `contamination` above a quarter where several numbers show few outliers, and of too few images for
        the rate `fpr`.
        """
        self._shape, copies = None, _Copies()
        found: list[list[Tensor]] = []
        errors: list[Tensor] = []
        for context in self._contexts(images, labels):
            found.append(self._numbers(context))
            copies.add(context.x)
            self._shape = tuple(context.x.shape[1:])
            if sum(map(len, errors)) < MAPPED:
                errors.append(_errors(context).transpose(0, 1))  # (B, G, H, W)
        groups = [torch.cat(parts) for parts in zip(*found, strict=True)]  # each (N, K)
        kept, problems = self._kept(groups)
        every = torch.cat(errors) if errors else None
        self.calibration = Calibration.of(
            [group[kept] for group in groups],
            None if every is None else every[kept[: len(every)]],
        )
        try:
            self.threshold()
        except ValueError as error:
            problems.append(str(error))
        for problem in [*copies.problems(), *problems]:
            warnings.warn(problem, CalibrationWarning, stacklevel=2)
        return self

    def _kept(self, groups: Sequence[Tensor]) -> tuple[Tensor, list[str]]:
        """Which of N normal images calibrate, (N,), and what is wrong with the others."""
        count, away = len(groups[0]) if groups else 0, outlyingness(groups)
        outliers = int((away > 1).sum())
        kept = torch.arange(count)
        budget = math.ceil((self.contamination + SLACK) * count) if self.contamination else 0
        while budget and (away > 1).any():  # without the most distant ones others stand out
            order = away.argsort(descending=True, stable=True)[: min(budget, int((away > 1).sum()))]
            budget -= len(order)
            kept = kept[torch.ones(len(kept), dtype=torch.bool).index_fill(0, order, False)]
            away = outlyingness([group[kept] for group in groups])
        mask = torch.zeros(count, dtype=torch.bool).index_fill(0, kept, True)
        left_out, several = count - len(kept), any(group.shape[1] > 1 for group in groups)
        if several and self.contamination > JUDGED and 2 * left_out < self.contamination * count:
            return mask, [
                f"only {left_out:,} of {count:,} normal images are clear outliers, and "
                f"contamination={self.contamination:g} allows more: if more than a quarter are anomalies, a "
                "score of several numbers may miss them: use a score of one number, such as loss, or "
                "remove anomalies first"
            ]
        rest = outliers - (count - len(kept))
        if rest <= max(3, TOLERATED * count, self.fpr / 2 * count):
            return mask, []
        share = math.ceil(20 * outliers / count) / 20
        return mask, [
            f"{rest:,} of {count:,} normal images are clear outliers, and anomalies like them will be "
            f"missed: remove them, or leave them out with contamination={min(share, 0.45):g}"
        ]

    def score_samples(self, images: Tensor | Iterable[Tensor], labels: Labels = None) -> Tensor:
        """The score of each image, (N,) float64 on the CPU: higher = more anomalous.

        NaN becomes infinity. A score of one number an image needs no `fit`.

        Raises ValueError as `fit` does, and where a calibration is needed.
        """
        scores = [NONE]
        for context in self._contexts(images, labels):
            numbers = torch.cat(self._numbers(context), 1)
            alone = numbers.shape[1] == 1
            scores.append(finite(numbers[:, 0]) if alone else self._calibrated().distance(numbers))
        return torch.cat(scores)

    def p_values(self, images: Tensor | Iterable[Tensor], labels: Labels = None) -> Tensor:
        """The conformal p-value of each image, (N,), from 1/(n+1) to 1: low = anomalous.

        (1 + #{calibration scores at least as high}) / (n + 1). Of new normal images at most a fraction
        p has a p-value of p or less, if they come from the same distribution as the calibration images
        (Vovk et al., Algorithmic learning in a random world, 2005; for outliers Bates et al., arXiv
        2104.08279).
        """
        return self.p_values_of(self.score_samples(images, labels))

    def p_values_of(self, scores: Tensor) -> Tensor:
        """The conformal p-values of scores (N,) from `score_samples`."""
        return self._calibrated().p_values(scores)

    def predict(
        self,
        images: Tensor | Iterable[Tensor],
        labels: Labels = None,
        *,
        fpr: float | None = None,
    ) -> Tensor:
        """True (N,) for anomalous images, at a false positive rate of at most `fpr`.

        Raises ValueError if there are too few calibration images for that rate.
        """
        return self.decision_function(images, labels, fpr=fpr) > 0

    def decision_function(
        self,
        images: Tensor | Iterable[Tensor],
        labels: Labels = None,
        *,
        fpr: float | None = None,
    ) -> Tensor:
        """The score minus the threshold, (N,): anomalous images are above 0."""
        threshold = self.threshold(fpr)
        return self.score_samples(images, labels) - threshold

    def threshold(self, fpr: float | None = None) -> float:
        """The score above which an image is anomalous: its p-value is `fpr` or less.

        Raises ValueError as `predict` does."""
        return self._calibrated().threshold(self.fpr if fpr is None else fpr)

    def anomaly_map(self, images: Tensor, labels: Labels = None) -> Tensor:
        """How anomalous each pixel is, (B, H, W) on the CPU: 1 = as in normal images.

        The squared error of the field, smoothed over 3x3 pixels and divided by the mean on normal
        images at that place; the mean over gammas. It does not depend on `score`. Signals (B, C, L) have
        maps (B, L) along time, videos (B, C, T, H, W) a map for each frame, (B, T, H, W), both smoothed
        over three steps of time as well, and points (B, D) a number for each value, not smoothed.

        Raises ValueError for a calibration without maps, and as `predict` does.
        """
        expected = self._calibrated().expected
        if expected.ndim == 1:
            raise ValueError(
                "anomaly maps need a calibration with maps, and this one has none: calibrate again"
            )
        maps = []
        for context in self._contexts(images, labels):
            axes = context.x.ndim - 2  # of space and time
            usual = _smooth(expected, axes)[:, None] + 1e-8  # (G, 1, H, W)
            maps.append((_smooth(_errors(context), axes) / usual).mean(0))
        return torch.cat(maps) if maps else torch.zeros(0, *expected.shape[1:])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Returns nothing; writes detector.safetensors and detector.json into `folder`, which is new or
        empty, or the folder of a model, a run or a detector of eqm.

        Raises ValueError for another folder, a detector without calibration, and a decay that is not
        registered; OSError if it cannot be written.
        """
        calibration, config = self._calibrated(), self._config
        settings = {
            "format": "eqm-detector",
            "version": _VERSION,
            "score": self.score,
            "fpr": self.fpr,
            "gammas": config.gammas,
            "draws": config.draws,
            "seed": config.seed,
            "decay": registry.settings_of("decay", config.objective.decay),
            "sampling": asdict(config.sampling),
            "weights": _fingerprint(self.field),
        }
        tensors = {name: tensor.contiguous() for name, tensor in vars(calibration).items()}
        folder = Path(folder)
        check_folder(folder, "eqm-detector", within=("eqm", "eqm-run"), name="folder")
        make_folder(folder)
        with replacing(folder / _SETTINGS) as words, replacing(folder / _TENSORS) as path:
            words.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            save_file(tensors, path)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        field: Field | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> EqmDetector:
        """The detector saved in `folder`, for `field`, by default the model in the same folder.

        `folder` may be the name of a model that comes with the package. Register scores, decays and
        rules of your own first. Raises ValueError if there is no detector, it is damaged, it needs a
        part that is not registered, or it was calibrated with other weights.
        """
        check_path(folder=folder)
        where = folder_of(os.fspath(folder))
        if not (where / _SETTINGS).is_file():
            raise ValueError(
                f"{where} must hold a calibrated detector, {_SETTINGS}: calibrate one on normal "
                "images, with `eqm detect MODEL IMAGES --normal PICTURES --save` or "
                "EqmDetector(field).fit(images).save(folder)"
            )
        field = from_pretrained(where, device=device) if field is None else field
        path, advice = where / _SETTINGS, "calibrate it again"
        found = read_json(path, dict[str, Any], advice=advice)
        if found.pop("format", "") != "eqm-detector":
            raise ValueError(f"{path} is not a detector of eqm: {advice}")
        if (version := found.pop("version", 0)) != _VERSION:
            raise ValueError(
                f"{path} must have version {_VERSION}; got {shown(version)}: upgrade eqm"
            )
        stored: _Stored = convert(found, _Stored, f"{path}: ", advice=advice)
        tensors = read_tensors(where / _TENSORS, advice=advice)
        try:
            name, settings = stored.decay
            config = ScoreConfig(
                EquilibriumMatching(
                    registry.make("decay", name, {}, settings.items()),
                    describe(field).noise_conditioning,
                ),
                stored.sampling,
                stored.gammas,
                stored.draws,
                stored.seed,
            )
            config.sampling.make_rule()  # raises now if the rule is not registered
            detector = cls(
                field, stored.score, stored.fpr, config, calibration=Calibration.load(tensors)
            )
        except registry.UnknownNameError as error:
            raise ValueError(f"cannot load the detector in {where}: {error}") from error
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the detector in {where} is damaged ({reason}): {advice}") from error
        if stored.weights != _fingerprint(field):
            raise ValueError(
                f"the detector in {where} was calibrated with other weights than these: calibrate it again"
            )
        return detector

    @property
    def _scores(self) -> tuple[str, ...]:
        return (self.score,) if isinstance(self.score, str) else tuple(self.score)

    @property
    def _config(self) -> ScoreConfig:
        return self.config or ScoreConfig.of(self.field)

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise ValueError(
                "the detector is not calibrated: call fit with normal images first, "
                "or load a calibrated one"
            )
        return self.calibration

    def _numbers(self, context: ScoreContext) -> list[Tensor]:
        """The scores of the images, (B, K) float64 on the CPU for each group measured jointly."""
        with torch.no_grad():
            scores = [registry.lookup("score", name)(context) for name in self._scores]
        groups = [score if isinstance(score, tuple) else (score,) for score in scores]
        columns = [as_columns(part) for group in groups for part in group]
        # several scores are measured jointly
        return columns if isinstance(self.score, str) else [torch.cat(columns, 1)]

    def _contexts(
        self, images: Tensor | Iterable[Tensor], labels: Labels
    ) -> Iterator[ScoreContext]:
        """The images in batches, checked, on the device of the field."""
        classes: Tensor | None = None
        if isinstance(images, str | dict | set) or not isinstance(images, Iterable):
            raise ValueError(f"images must be a tensor, or batches of them; got {kind_of(images)}")
        if labels is not None:
            if not isinstance(images, Tensor):
                raise ValueError("labels need one tensor of images; got batches of images")
            self._check(images)
            classes = chosen_labels(self.field, labels, len(images)) if len(images) else None
        done = 0
        for batch in (images,) if isinstance(images, Tensor) else images:
            self._check(batch)
            for x in batch.split(self.batch_size):
                x = self._placed(x)
                own = None if classes is None else classes[done : done + len(x)].to(x.device)
                done += len(x)
                if len(x):
                    yield ScoreContext(self.field, x, own, self._config)

    def _check(self, x: Tensor) -> None:
        if (
            not isinstance(x, Tensor)
            or x.ndim < 2
            or not x.is_floating_point()
            or not _has_values(x)
        ):
            raise ValueError(
                "images must be floating-point tensors (B, C, H, W) in -1..1; "
                f"got {kind_of(x)}: convert bytes by images.float() / 127.5 - 1"
            )
        if not x.isfinite().all():
            raise ValueError("images must be finite; some values are NaN or infinity")
        info = describe(self.field)
        shape = info.shape or self._shape
        if shape is None:
            return
        if x.shape[1:] != shape:
            raise ValueError(
                f"images must have the model's shape {shape}; got {tuple(x.shape[1:])}: "
                "resize them first (`eqm detect --resize` does)"
            )
        pixels = info.shape and x.ndim == 4 and not (info.metadata.get("data") or {}).get("encoder")
        if pixels and x.numel() and x.abs().max() > 1.001:
            raise ValueError(
                f"images must lie in -1..1; got {x.min():g}..{x.max():g}: scale them, bytes by "
                "images.float() / 127.5 - 1, or clip samples that overshoot by images.clamp(-1, 1)"
            )
        if pixels:
            warn_of_range(x)

    def _placed(self, x: Tensor) -> Tensor:
        if not isinstance(self.field, nn.Module):
            return x
        weight = next(self.field.parameters(), x)
        return x.to(weight.device, getattr(self.field, "dtype", weight.dtype))


def _has_values(x: Tensor) -> bool:
    return not x.is_meta and x.layout is torch.strided and math.prod(x.shape[1:]) > 0


class _Copies:
    """Counts the images that are equal to an earlier one."""

    def __init__(self) -> None:
        self.count, self.different = 0, set[bytes]()

    def add(self, x: Tensor) -> None:
        rows = x.detach().flatten(1).cpu().contiguous().view(torch.uint8).numpy()
        self.count += len(rows)
        self.different.update(hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)

    def problems(self) -> list[str]:
        copies = self.count - len(self.different)
        if copies <= TOLERATED_COPIES * self.count:
            return []
        return [
            f"{copies:,} of {self.count:,} normal images are copies of others: the false positive rate "
            f"holds only for different images, here {len(self.different):,}; give each image once"
        ]


@torch.no_grad()
def _errors(context: ScoreContext) -> Tensor:
    """Squared errors of images, summed over channels, (G, B, H, W) float32 on the CPU; of points, which have
    no channels, (G, B, D)."""
    errors = context.errors
    return (errors.sum(2) if errors.ndim > 3 else errors).float().cpu()


def _smooth(maps: Tensor, axes: int = 2) -> Tensor:
    """The mean of three neighbours along each of the last `axes` axes; at the edge the mean of those inside."""
    if axes == 2:
        return avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
    for axis in range(maps.ndim - axes, maps.ndim):
        lines = maps.movedim(axis, -1)
        flat = lines.reshape(-1, 1, lines.shape[-1])
        means = avg_pool1d(flat, 3, stride=1, padding=1, count_include_pad=False)
        maps = means.view(lines.shape).movedim(-1, axis)
    return maps


def _fingerprint(field: Field) -> str | None:
    """A hexadecimal digest of the weights of a field, None if it is not a module."""
    if not isinstance(field, nn.Module):
        return None
    sha = hashlib.sha256()
    for name, tensor in sorted(field.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
