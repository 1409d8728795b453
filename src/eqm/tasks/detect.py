"""Anomaly detection: calibrated scores decide whether an image is unlike the training images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from eqm import registry
from eqm.checks import check_count, check_field, check_fraction, check_path, kind_of
from eqm.encoders import Encoder
from eqm.field import Field
from eqm.sampling.labels import Labels, chosen_labels
from eqm.tasks.calibration import NONE, Calibration, CalibrationWarning, check_rate, finite
from eqm.tasks.detector_files import feature_maps_of, load_detector, save_detector
from eqm.tasks.detector_inputs import Copies, batches_of, check_images, kept_images
from eqm.tasks.error_maps import enlarged, errors_of, relative
from eqm.tasks.residuals import ResidualGaussian
from eqm.tasks.scores import ScoreConfig, ScoreContext, as_columns, check_explicit

MAPPED = 256
"""Anomaly maps are relative to the mean error of this many normal images."""


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
    encoder: Encoder | None = None
    """What turns pictures into what the field takes; for a model of feature maps of lite0 it is found."""
    usual: ResidualGaussian | None = None
    """What the field gets wrong on training images, which the score `gaussian` needs."""
    held_out: Tensor | None = None
    """The numbers of the pictures that `train_detector` held out, in the order of `calibration.scores`."""
    notes: tuple[str, ...] = ()
    """Sentences on how the detector was made."""

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
        if self.encoder is None:
            self.encoder = feature_maps_of(self.field)
        self._axes = 2  # of space and time
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
        self._shape, copies = None, Copies()
        found: list[list[Tensor]] = []
        errors: list[Tensor] = []
        for context, pictures in self._contexts(images, labels):
            found.append(self._numbers(context))
            copies.add(pictures)
            self._shape = tuple(pictures.shape[1:])
            if sum(map(len, errors)) < MAPPED:
                errors.append(errors_of(context).transpose(0, 1))  # (B, G, H, W)
        groups = [torch.cat(parts) for parts in zip(*found, strict=True)]  # each (N, K)
        kept, problems = kept_images(groups, self.contamination, self.fpr)
        every = torch.cat(errors)[kept[: sum(map(len, errors))]] if errors else None
        self.calibration = Calibration.of([group[kept] for group in groups], every)
        if every is not None:
            maps = relative(every.transpose(0, 1), self.calibration.expected, self._axes)
            self.calibration = replace(self.calibration, peaks=_peaks(maps))
        try:
            self.threshold()
        except ValueError as error:
            problems.append(str(error))
        for problem in [*copies.problems(), *problems]:
            warnings.warn(problem, CalibrationWarning, stacklevel=2)
        return self

    def score_samples(self, images: Tensor | Iterable[Tensor], labels: Labels = None) -> Tensor:
        """The score of each image, (N,) float64 on the CPU: higher = more anomalous.

        NaN becomes infinity. A score of one number an image needs no `fit`.

        Raises ValueError as `fit` does, and where a calibration is needed.
        """
        scores = [NONE]
        for context, _ in self._contexts(images, labels):
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
        for context, pictures in self._contexts(images, labels):
            found = relative(errors_of(context), expected, self._axes)
            maps.append(found if context.x is pictures else enlarged(found, pictures.shape[2:]))
        return torch.cat(maps) if maps else torch.zeros(0, *expected.shape[1:])

    def map_threshold(self, fpr: float | None = None) -> float:
        """The level of `anomaly_map` above which a pixel is anomalous.

        At most a share `fpr` of normal images has a pixel above it. Raises ValueError if there are too few
        calibration images for that rate, and for a calibration without maps."""
        return self._calibrated().map_threshold(self.fpr if fpr is None else fpr)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Returns nothing; writes detector.safetensors and detector.json into `folder`, which is new or
        empty, or the folder of a model, a run or a detector of eqm.

        A detector with an `encoder` writes its network as well: the folder is then complete. Raises ValueError
        for another folder, a detector without calibration, and a decay that is not registered; OSError if
        it cannot be written.
        """
        save_detector(self, self._calibrated(), folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        field: Field | None = None,
        *,
        encoder: Encoder | None = None,
        device: str | torch.device = "cpu",
    ) -> EqmDetector:
        """The detector saved in `folder`, for `field`, by default the model in the same folder.

        `folder` may be the name of a model that comes with the package. Feature maps of lite0 are found by
        themselves; other encoders must be given. Register scores, decays and rules of your own first. Raises
        ValueError if there is no detector, it is damaged, it needs a part that is not registered, or it
        was calibrated with other weights.
        """
        check_path(folder=folder)
        return load_detector(cls, folder, field, encoder, device)

    @property
    def _scores(self) -> tuple[str, ...]:
        return (self.score,) if isinstance(self.score, str) else tuple(self.score)

    @property
    def score_config(self) -> ScoreConfig:
        """The settings of the score."""
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
    ) -> Iterator[tuple[ScoreContext, Tensor]]:
        """The images in batches, checked, on the device of the field; beside each the batch as it was given."""
        classes: Tensor | None = None
        if labels is not None:
            if not isinstance(images, Tensor):
                raise ValueError("labels need one tensor of images; got batches of images")
            check_images(images, self.field, self.encoder, self._shape)
            classes = chosen_labels(self.field, labels, len(images)) if len(images) else None
        done, config = 0, self.score_config
        for batch in batches_of(images):
            check_images(batch, self.field, self.encoder, self._shape)
            for pictures in batch.split(self.batch_size):
                if not len(pictures):
                    continue
                x = pictures if self.encoder is None else self.encoder.encode(pictures)[0]
                self._axes = x.ndim - 2  # of space and time
                x = self._placed(x)
                own = None if classes is None else classes[done : done + len(x)].to(x.device)
                done += len(x)
                given = pictures if self.encoder is not None else x
                yield ScoreContext(self.field, x, own, config, self.usual), given

    def _placed(self, x: Tensor) -> Tensor:
        if not isinstance(self.field, nn.Module):
            return x
        weight = next(self.field.parameters(), x)
        return x.to(weight.device, getattr(self.field, "dtype", weight.dtype))


def _peaks(maps: Tensor) -> Tensor:
    """The largest value of each map (N, ...), sorted."""
    return maps.flatten(1).amax(1).double().sort().values
