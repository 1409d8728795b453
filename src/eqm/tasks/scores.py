"""How far an image is from what the landscape was made of, in numbers: higher = more anomalous."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from eqm.corruption import (
    ConstantDecay,
    Decay,
    LinearDecay,
    PiecewiseDecay,
    TruncatedDecay,
    corrupt,
)
from eqm.descent import Descent, RelativeGradientNorm, Stop, descend, measure, record
from eqm.descent.checks import check_count
from eqm.field import Field
from eqm.objective import EquilibriumMatching
from eqm.pictures import to_uint8
from eqm.shapes import norms
from eqm.tasks.sampling import Sampling

CELLS = 4
"""Cells a side in which `residuals` looks at an image."""
HALFWAY = 0.5
"""The gamma to which `restore` and `steps` noise an image."""
ARRIVED = 0.2
"""For `steps` a gradient has fallen far enough once it is this much of its first one."""


@dataclass(frozen=True)
class Probe:
    """What a score asks of a field: the same of every image, so that a score depends on nothing
    but its image."""

    objective: EquilibriumMatching = EquilibriumMatching()
    """What the field was trained with."""
    sampling: Sampling = Sampling()
    """How to descend; guidance and gradient_ratio do not apply."""
    gammas: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Noise levels at which the training loss is taken, from 0 (noise) to 1 (the clean image)."""
    draws: int = 2
    """Pictures of noise for each of them but 1."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        check_count(draws=self.draws)
        if not self.gammas or not all(0 <= gamma <= 1 for gamma in self.gammas):
            raise ValueError(
                f"gammas must be numbers from 0 (noise) to 1 (clean), one at least; got {self.gammas}"
            )

    @classmethod
    def of(cls, field: Field) -> Probe:
        """The probe for a field: decay and descent as stored with its weights, else defaults."""
        metadata: dict[str, Any] = getattr(field, "metadata", None) or {}
        told = bool(getattr(getattr(field, "config", None), "noise_conditioning", False))
        decay = _decay(metadata.get("training") or {})
        return cls(EquilibriumMatching(decay, told), Sampling.of(metadata))

    def residuals(self, field: Field, x: Tensor, labels: Tensor | None) -> Iterator[list[Tensor]]:
        """At each gamma, what the field says less what it should, (B, ...) for each draw of noise."""
        generator = torch.Generator().manual_seed(self.seed)
        for gamma in self.gammas:
            level = x.new_full((len(x),), gamma)
            yield [
                self.objective.residual(
                    field, x, labels, noise=_noise(x, generator), gamma=level
                )
                for _ in range(self.draws if gamma < 1 else 1)  # clean images have no noise
            ]

    def descend(self, field: Field, x: Tensor, labels: Tensor | None, stop: Stop | None) -> Descent:
        """Where x ends after the path of the settings, or at the stop."""
        self.check_descends()
        steps, rule = self.sampling.max_steps, self.sampling.make_rule()
        return descend(field, x, labels, rule=rule, stop=stop, max_steps=steps)

    def halfway(self, x: Tensor) -> Tensor:
        """x (B, ...), half noise."""
        noise = _noise(x, torch.Generator().manual_seed(self.seed))
        return corrupt(x, noise, x.new_full((len(x),), HALFWAY))

    def check_descends(self) -> None:
        """Raises ValueError for a model that is told the noise level."""
        if self.objective.noise_conditioning:
            raise ValueError(
                "a model that is told the noise level does not descend: take the score loss or combined"
            )


Score = Callable[[Field, Tensor, Tensor | None, Probe], Tensor]
"""`score(field, x, labels, probe)`: a number an image of x (B, ...), (B,), or several, (B, K)."""


def energy(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """The energy of an explicit model (EqM-E)."""
    if not hasattr(field, "energy"):
        raise ValueError(
            "the score energy needs an explicit energy, such as DotEnergy; got an implicit field, "
            f"{type(field).__name__}: take dot, loss or combined, or train with --objective.energy dot"
        )
    return field.energy(x, labels)


def dot(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """The product of image and field, <x, f(x)>: the paper's score, for an implicit field."""
    return (x * field(x, labels)).flatten(1).sum(1)


def gradient_norm(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """The norm of the field at the image: what was learnt is an equilibrium."""
    return norms(field(x, labels))


def work(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """The work that the field does while the image descends, the line integral of -f . dx."""
    probe.check_descends()
    steps, rule = probe.sampling.max_steps, probe.sampling.make_rule()
    way = record(field, x, labels, rule=rule, at=range(steps + 1), max_steps=steps)
    return -measure(field, way, labels).work[-1]


def displacement(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """How far from the image its descent ends."""
    return norms(probe.descend(field, x, labels, None).x - x)


def restore(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """How far from the image the descent ends that starts from the image half noised."""
    return norms(probe.descend(field, probe.halfway(x), labels, None).x - x)


def steps(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """Steps from the image half noised to where the gradient has fallen to a fifth."""
    stop = RelativeGradientNorm(ARRIVED)
    return probe.descend(field, probe.halfway(x), labels, stop).steps.to(x.dtype)


def loss(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """The training loss (Eq. 3 of arXiv 2510.02300), the mean over gammas and draws."""
    errors = [
        torch.stack([r.square().flatten(1).mean(1) for r in draws]).mean(0)
        for draws in probe.residuals(field, x, labels)
    ]
    return torch.stack(errors).mean(0)


def residuals(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """The logarithm of the training loss in each cell of a grid at each gamma, (B, K)."""
    found = []
    for draws in probe.residuals(field, x, labels):
        error = torch.stack([r.square() for r in draws]).mean(0)
        found.append(adaptive_avg_pool2d(error.mean(1), CELLS).flatten(1))
    return (torch.cat(found, 1) + 1e-8).log()


def complexity(field: Field, x: Tensor, labels: Tensor | None, probe: Probe) -> Tensor:
    """The bits a value that zlib needs for the image in 8 bits: simple images fit any model."""
    sizes = [8 * len(zlib.compress(pixels.tobytes(), 9)) / pixels.size for pixels in to_uint8(x)]
    return torch.tensor(sizes, dtype=x.dtype)


SCORES: dict[str, Score] = {
    "energy": energy,
    "dot": dot,
    "gradient-norm": gradient_norm,
    "work": work,
    "displacement": displacement,
    "restore": restore,
    "steps": steps,
    "loss": loss,
    "residuals": residuals,
    "complexity": complexity,
}
"""Every score by its name; all but `residuals` are one number an image."""


def matching_error(
    field: Field,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    objective: EquilibriumMatching | None = None,
    gammas: Sequence[float] = (0.5, 0.7),
    draws: int = 8,
    seed: int = 0,
) -> Tensor:
    """The training loss of each image of x (B, ...), (B,): higher = more anomalous.

    The mean of `|| field(x_gamma) - (noise - x) c(gamma) ||^2` per element (Eq. 3 of arXiv
    2510.02300) over the fixed `gammas` and `draws` of noise, which are the same for every image:
    the score of an image depends on nothing but it. A field knows how to lead noisy data back to
    where it came from, and not so for what it was not trained on. The cost is one evaluation a
    gamma and draw. `objective` is the one the field was trained with.
    """
    probe = Probe(objective or EquilibriumMatching(), gammas=tuple(gammas), draws=draws, seed=seed)
    with torch.no_grad():
        return loss(field, x, labels, probe)


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """One picture of noise for all images of x (B, ...)."""
    return torch.randn(x.shape[1:], generator=generator, dtype=x.dtype).to(x.device).expand_as(x)


def _decay(training: Mapping[str, Any]) -> Decay:
    """The decay that the settings stored with a model describe."""
    scale, start = training.get("objective.scale", 4.0), training.get("objective.start", 0.8)
    match training.get("objective.decay", "truncated"):
        case "linear":
            return LinearDecay(scale)
        case "piecewise":
            return PiecewiseDecay(start, training.get("objective.initial", 1.4), scale)
        case "constant":
            return ConstantDecay(scale)
    return TruncatedDecay(start, scale)
