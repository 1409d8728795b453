"""Whether an image is one of those that a field was made of: scores that are calibrated decide."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from eqm import registry
from eqm.descent.checks import check_count
from eqm.field import Field
from eqm.files import replacing
from eqm.models import from_pretrained
from eqm.models.pretrained import folder_of
from eqm.objective import EquilibriumMatching
from eqm.sampling.labels import Labels, chosen_labels
from eqm.sampling.settings import Sampling
from eqm.tasks.calibration import NONE, Calibration, check_rate, finite
from eqm.tasks.scores import SCORES, ScoreConfig, ScoreContext, check_explicit, matching_error

__all__ = ["EqmDetector", "matching_error"]

COMBINED = (("losses", "complexity"), ("residuals",))
"""What the score "combined" adds up: two distances, each of what is measured jointly."""
MAPPED = 256
"""Normal images that say what an anomaly map is measured by."""
_TENSORS, _SETTINGS, _VERSION = "detector.safetensors", "detector.json", 1


@dataclass(eq=False)
class EqmDetector:
    """Scores images by a field, higher = more anomalous, and decides once it has seen normal ones.

    Nothing is trained, and no anomalous image is needed: `fit` sets `calibration` alone. `score` is
    a name of `eqm.tasks.scores.SCORES`, or several of them, or "combined". One number an image is
    its score as it is. Of several, `fit` learns mean and covariance, and the score is the squared
    Mahalanobis distance to that mean, divided by how many they are: an image whose loss is
    unusually low, or high at one noise level and low at another, is no more typical than one whose
    loss is high. "combined" is the sum of two such distances: one of the training loss at each gamma
    and how well zlib packs the image (simple images fit any model; Serra et al., arXiv 1909.11480),
    the other of the loss in 4x4 cells.

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
    probe: ScoreConfig | None = None
    """What the field is asked; by default what suits it, `Probe.of(field)`."""
    batch_size: int = 256
    """Images that the field is given at a time; memory does not grow with their number."""
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        check_count(batch_size=self.batch_size)
        check_rate(self.fpr)
        names = [name for group in self._groups for name in group]
        if not names or not set(names) <= set(SCORES):
            known = ", ".join(("combined", *SCORES))
            raise ValueError(f"score must be among {known}; got {self.score!r}")
        if "energy" in names:
            check_explicit(self.field)

    def fit(self, images: Tensor | Iterable[Tensor], labels: Labels = None) -> Self:
        """The detector itself, calibrated on normal images (N, C, H, W), or batches of them.

        They should not be images that the field was trained on, whose scores are lower. Where there
        are several numbers an image, one half tells what is typical and the other, at random, how
        typical normal images are: so that p-values hold for new ones.

        Raises ValueError for images that do not suit the field, for fewer than four, and for
        `labels`, one an image or one for all, that the model does not have.
        """
        found: list[list[Tensor]] = []
        errors: list[Tensor] = []
        for view in self._views(images, labels):
            found.append(self._numbers(view))
            if view.x.ndim == 4 and sum(map(len, errors)) < MAPPED:
                errors.append(_errors(view).transpose(0, 1))  # (B, G, H, W)
        groups = [torch.cat(parts) for parts in zip(*found, strict=True)]  # each (N, K)
        self.calibration = Calibration.of(groups, torch.cat(errors) if errors else None)
        return self

    def score_samples(self, images: Tensor | Iterable[Tensor], labels: Labels = None) -> Tensor:
        """The score of each image, (N,) float64 on the CPU: higher = more anomalous.

        A score that is one number an image needs no `fit`. What is not finite is infinite.

        Raises ValueError as `fit` does, and where a calibration is needed.
        """
        scores = [NONE]
        for view in self._views(images, labels):
            numbers = torch.cat(self._numbers(view), 1)
            alone = numbers.shape[1] == 1
            scores.append(finite(numbers[:, 0]) if alone else self._calibrated().distance(numbers))
        return torch.cat(scores)

    def p_values(self, images: Tensor | Iterable[Tensor], labels: Labels = None) -> Tensor:
        """The conformal p-value of each image, (N,), in 1/(n+1)..1: low = anomalous.

        (1 + #{calibration scores at least as high}) / (n + 1): of new normal images a share of at
        most p has a p-value of p or less, whatever the score and the data, as long as they come
        from where the calibration images came from (Vovk et al., Algorithmic learning in a random
        world, 2005; for outliers Bates et al., arXiv 2104.08279).
        """
        return self.p_values_of(self.score_samples(images, labels))

    def p_values_of(self, scores: Tensor) -> Tensor:
        """The conformal p-values of scores (N,) that `score_samples` returned."""
        return self._calibrated().p_values(scores)

    def predict(
        self,
        images: Tensor | Iterable[Tensor],
        labels: Labels = None,
        *,
        fpr: float | None = None,
    ) -> Tensor:
        """True (N,) for anomalous images, at a rate of false alarms of at most `fpr`.

        Raises ValueError where the calibration is of too few images for that rate.
        """
        return self.decision_function(images, labels, fpr=fpr) > 0

    def decision_function(
        self,
        images: Tensor | Iterable[Tensor],
        labels: Labels = None,
        *,
        fpr: float | None = None,
    ) -> Tensor:
        """The score less the threshold, (N,): anomalous images are above 0."""
        threshold = self.threshold(fpr)
        return self.score_samples(images, labels) - threshold

    def threshold(self, fpr: float | None = None) -> float:
        """The score above which an image is anomalous: its p-value is `fpr` or less.

        Raises ValueError as `predict` does."""
        return self._calibrated().threshold(self.fpr if fpr is None else fpr)

    def anomaly_map(self, images: Tensor, labels: Labels = None) -> Tensor:
        """How anomalous each pixel is, (B, H, W) on the CPU: 1 = as normal images are there.

        The squared error of the field around each pixel, 3x3, by what it is there on normal images;
        the mean over gammas. It is the same for every `score`.

        Raises ValueError for what is no image, and as `predict` does.
        """
        expected = self._calibrated().expected
        if expected.ndim != 3:
            raise ValueError("an anomaly map is one of images (B, C, H, W); these are none")
        usual = _smooth(expected)[:, None] + 1e-8  # (G, 1, H, W)
        maps = [(_smooth(_errors(v)) / usual).mean(0) for v in self._views(images, labels)]
        return torch.cat(maps) if maps else torch.zeros(0, *expected.shape[1:])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Returns nothing; writes detector.safetensors and detector.json into `folder`, which may be
        that of the model.

        Raises ValueError for a detector that was not calibrated."""
        calibration, probe = self._calibrated(), self._probe
        settings = {
            "format": "eqm-detector",
            "version": _VERSION,
            "score": self.score,
            "fpr": self.fpr,
            "gammas": probe.gammas,
            "draws": probe.draws,
            "seed": probe.seed,
            "decay": registry.settings_of("decay", probe.objective.decay),
            "sampling": asdict(probe.sampling),
            "weights": _fingerprint(self.field),
        }
        tensors = {name: tensor.contiguous() for name, tensor in vars(calibration).items()}
        folder = Path(folder)
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
        """The detector that was saved in `folder`, for `field`, by default the model that lies there.

        `folder` may be the name of a model that comes with the package. Raises ValueError where there
        is no detector, it is damaged, or it was calibrated with other weights.
        """
        where = folder_of(os.fspath(folder))
        if not (where / _SETTINGS).is_file():
            raise ValueError(
                f"{where} must hold a calibrated detector, {_SETTINGS}; it does not: calibrate one on "
                "normal images, `eqm detect MODEL IMAGES --normal PICTURES --keep` or "
                "EqmDetector(field).fit(images).save(folder)"
            )
        field = from_pretrained(where, device=device) if field is None else field
        try:
            stored = json.loads((where / _SETTINGS).read_text(encoding="utf-8"))
            if stored["format"] != "eqm-detector" or stored["version"] != _VERSION:
                raise ValueError(f"it is of version {stored['version']}: upgrade eqm")
            name, settings = stored["decay"]
            told = ScoreConfig.of(field).objective.noise_conditioning
            probe = ScoreConfig(
                EquilibriumMatching(registry.make("decay", name, {}, settings.items()), told),
                Sampling(**stored["sampling"]),
                tuple(stored["gammas"]),
                stored["draws"],
                stored["seed"],
            )
            calibration = Calibration(**load_file(where / _TENSORS))
            if not len(calibration.scores) or not calibration.scores.isfinite().all():
                raise ValueError("its scores are not finite numbers, one at least")
            score = stored["score"]
            score = score if isinstance(score, str) else tuple(score)
            detector = cls(field, score, stored["fpr"], probe, calibration=calibration)
            weights = stored["weights"]
        except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{where} must hold a whole detector; {reason}: calibrate it again"
            ) from error
        if weights != _fingerprint(field):
            raise ValueError(
                f"the detector in {where} was calibrated with other weights than these: calibrate it again"
            )
        return detector

    @property
    def _groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of scores, together where they are measured jointly."""
        if self.score == "combined":
            return COMBINED
        return ((self.score,) if isinstance(self.score, str) else tuple(self.score),)

    @property
    def _probe(self) -> ScoreConfig:
        return self.probe or ScoreConfig.of(self.field)

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise ValueError(
                "the detector was not calibrated: call fit with normal images first, "
                "or load one that was"
            )
        return self.calibration

    def _numbers(self, view: ScoreContext) -> list[Tensor]:
        """What the scores say of the images, (B, K) float64 on the CPU, a tensor a group."""
        with torch.no_grad():
            return [
                torch.cat([_columns(SCORES[name](view)) for name in group], 1)
                for group in self._groups
            ]

    def _views(self, images: Tensor | Iterable[Tensor], labels: Labels) -> Iterator[ScoreContext]:
        """The images in batches, checked, where the field wants them."""
        probe, config = self._probe, getattr(self.field, "config", None)
        classes: Tensor | None = None
        if isinstance(images, Tensor):
            if labels is not None and config is not None:
                classes = chosen_labels(self.field, labels, len(images))
            elif labels is not None:
                classes = torch.as_tensor(labels).expand(len(images))
            batches: Iterable[Tensor] = images.split(self.batch_size)
        elif labels is None:
            batches = images
        else:
            raise ValueError("labels go with one tensor of images; got batches of them")
        done = 0
        for batch in batches:
            self._check(batch)
            for x in batch.split(self.batch_size):
                x = self._placed(x)
                part = None if classes is None else classes[done : done + len(x)].to(x.device)
                done += len(x)
                if len(x):
                    yield ScoreContext(self.field, x, part, probe)

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.ndim < 2 or not x.is_floating_point():
            found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                "images must be a floating-point tensor (B, C, H, W) in -1..1, or batches of such; got "
                f"{found}: of bytes pass images.float() / 127.5 - 1"
            )
        if not x.isfinite().all():
            raise ValueError("images must be finite; some values are NaN or infinity")
        config, metadata = getattr(self.field, "config", None), getattr(self.field, "metadata", {})
        if config is None:
            return
        if x.shape[1:] != tuple(config.shape):
            raise ValueError(
                f"images must have the model's shape {tuple(config.shape)}; got {tuple(x.shape[1:])}: "
                "resize them first (`eqm detect --resize` does)"
            )
        pixels = x.ndim == 4 and not (metadata.get("data") or {}).get("encoder")
        if pixels and x.numel() and x.abs().max() > 1.001:
            raise ValueError(
                f"images must lie in -1..1; got {x.min():g}..{x.max():g}: scale them, bytes by "
                "images.float() / 127.5 - 1, or clip samples that overshoot by images.clamp(-1, 1)"
            )

    def _placed(self, x: Tensor) -> Tensor:
        if not isinstance(self.field, nn.Module):
            return x
        weight = next(self.field.parameters(), x)
        return x.to(weight.device, getattr(self.field, "dtype", weight.dtype))


def _columns(found: Tensor) -> Tensor:
    found = found.to("cpu", torch.float64)
    return found[:, None] if found.ndim == 1 else found


@torch.no_grad()
def _errors(view: ScoreContext) -> Tensor:
    """Squared errors of images, channels summed, (G, B, H, W) float32 on the CPU."""
    return view.errors.sum(2).float().cpu()


def _smooth(maps: Tensor) -> Tensor:
    """The mean of 3x3 pixels, of those that there are."""
    return avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


def _fingerprint(field: Field) -> str | None:
    """Hexadecimal digest of the weights of a field, None where it has none."""
    if not isinstance(field, nn.Module):
        return None
    sha = hashlib.sha256()
    for name, tensor in sorted(field.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
