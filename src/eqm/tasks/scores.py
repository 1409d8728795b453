"""How far images are from what a field was made of, in numbers: higher = more anomalous."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from eqm.corruption import corrupt, decay_of
from eqm.descent import Outcome, RelativeGradientNorm, Solution, Stop, descend, measure, record
from eqm.descent.checks import check_count
from eqm.field import Field
from eqm.objective import EquilibriumMatching
from eqm.pictures import to_uint8
from eqm.sampling.settings import Sampling
from eqm.shapes import norms

GAMMAS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
CELLS = 4
"""Cells a side in which `residuals` looks at an image."""
HALFWAY = 0.5
"""The gamma to which `restore` and `steps` noise an image."""
ARRIVED = 0.2
"""For `steps` a gradient has fallen far enough once it is this much of its first one."""


@dataclass(frozen=True)
class ScoreConfig:
    """What a score asks of a field: the same of every image, so that a score depends on nothing
    but its image."""

    objective: EquilibriumMatching
    """What the field was trained with."""
    sampling: Sampling = Sampling()
    """How to descend; its stop and guidance do not apply."""
    gammas: tuple[float, ...] = GAMMAS
    """Noise levels of the training loss, from 0 (noise) to 1 (the clean image)."""
    draws: int = 1
    """Pictures of noise for each of them; a clean image has none."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        check_count(draws=self.draws)
        if not self.gammas or not all(0 <= gamma <= 1 for gamma in self.gammas):
            raise ValueError(
                f"gammas must be numbers from 0 (noise) to 1 (clean), one at least; got {self.gammas}"
            )

    @classmethod
    def of(
        cls, field: Field, *, gammas: Sequence[float] = GAMMAS, draws: int = 1, seed: int = 0
    ) -> ScoreConfig:
        """The probe for a field: decay and descent as stored with its weights, else defaults."""
        told = bool(getattr(getattr(field, "config", None), "noise_conditioning", False))
        stored = Sampling.of(getattr(field, "metadata", None) or {})
        sampling = replace(stored, multistep_coefficients=())  # which are for descents from noise
        objective = EquilibriumMatching(decay_of(field), told)
        return cls(objective, sampling, tuple(gammas), draws, seed)


@dataclass(frozen=True, eq=False)
class ScoreContext:
    """Images x (B, ...) under a probe. What several scores need of the field is asked once."""

    field: Field
    x: Tensor
    labels: Tensor | None
    probe: ScoreConfig

    @cached_property
    def gradient(self) -> Tensor:
        """The field at the images, (B, ...)."""
        return self._ask(self.x, 1.0)

    @cached_property
    def errors(self) -> Tensor:
        """The squared difference of what the field says of noisy images and what it should, the
        mean over draws, (G, B, ...) for G gammas."""
        generator = torch.Generator().manual_seed(self.probe.seed)
        return torch.stack([self._error(gamma, generator) for gamma in self.probe.gammas])

    def _error(self, gamma: float, generator: torch.Generator) -> Tensor:
        level, found = self._level(gamma), []
        for _ in range(self.probe.draws if gamma < 1 else 1):
            noise = self._noise(generator)
            target = (noise - self.x) * self.probe.objective.decay(level[:1]).item()
            found.append((self._ask(corrupt(self.x, noise, level), gamma) - target).square())
        return torch.stack(found).mean(0)

    def _ask(self, x: Tensor, gamma: float) -> Tensor:
        """What the field returns at x, told gamma where it must be."""
        told = self.probe.objective.noise_conditioning
        given = (x, self.labels, self._level(gamma)) if told else (x, self.labels)
        gradient = self.field(*given)
        if gradient.shape != x.shape:
            raise ValueError(
                f"a field must return the shape it is given, {tuple(x.shape)}; got {tuple(gradient.shape)}"
            )
        return gradient

    def halfway(self) -> Tensor:
        """The images, half noise."""
        noise = self._noise(torch.Generator().manual_seed(self.probe.seed))
        return corrupt(self.x, noise, self._level(HALFWAY))

    def descend(self, start: Tensor, stop: Stop | None = None) -> Solution:
        """Where the descent ends from each start, after the path of the settings or at the stop."""
        self.check_descends()
        rule, steps = self.probe.sampling.make_rule(), self.probe.sampling.max_steps
        return descend(self.field, start, self.labels, rule=rule, stop=stop, max_steps=steps)

    def check_descends(self) -> None:
        """Raises ValueError for a model that is told the noise level."""
        if self.probe.objective.noise_conditioning:
            raise ValueError(
                "a model that is told the noise level does not descend: take the score loss or combined"
            )

    def _level(self, gamma: float) -> Tensor:
        return self.x.new_full((len(self.x),), gamma)

    def _noise(self, generator: torch.Generator) -> Tensor:
        """One picture of noise for all images."""
        shape = self.x.shape[1:]
        noise = torch.randn(shape, generator=generator, dtype=self.x.dtype)
        return noise.to(self.x.device).expand_as(self.x)


Score = Callable[[ScoreContext], Tensor]
"""One number an image, (B,), or several, (B, K)."""


def energy(context: ScoreContext) -> Tensor:
    """The energy of an explicit model (EqM-E)."""
    check_explicit(context.field)
    found: Tensor = context.field.energy(context.x, context.labels)  # type: ignore[attr-defined]
    return found


def dot(context: ScoreContext) -> Tensor:
    """The product of image and field, <x, f(x)>: the paper's score, for an implicit field."""
    return (context.x * context.gradient).flatten(1).sum(1)


def gradient_norm(context: ScoreContext) -> Tensor:
    """The norm of the field at the image: what was learnt is an equilibrium."""
    return norms(context.gradient)


def work(context: ScoreContext) -> Tensor:
    """The work that the field does while the image descends, the line integral of -f . dx."""
    context.check_descends()
    rule, steps = context.probe.sampling.make_rule(), context.probe.sampling.max_steps
    way = record(
        context.field, context.x, context.labels, rule=rule, at=range(steps + 1), max_steps=steps
    )
    return -measure(context.field, way, context.labels).work[-1]


def displacement(context: ScoreContext) -> Tensor:
    """How far from the image its descent ends; infinite where it diverges."""
    return _away(context, context.descend(context.x))


def restore(context: ScoreContext) -> Tensor:
    """How far from the image the descent ends that starts from the image half noised."""
    return _away(context, context.descend(context.halfway()))


def steps(context: ScoreContext) -> Tensor:
    """Steps from the image half noised to where the gradient has fallen to a fifth."""
    return context.descend(context.halfway(), RelativeGradientNorm(ARRIVED)).steps


def loss(context: ScoreContext) -> Tensor:
    """The training loss (Eq. 3 of arXiv 2510.02300), the mean over gammas and draws."""
    return context.errors.flatten(2).mean(2).mean(0)


def losses(context: ScoreContext) -> Tensor:
    """The logarithm of the training loss at each gamma, (B, G)."""
    return _log(context.errors.flatten(2).mean(2).T)


def residuals(context: ScoreContext) -> Tensor:
    """The logarithm of the training loss in each cell of a grid at each gamma, (B, K)."""
    found = [adaptive_avg_pool2d(_image(e).mean(1), CELLS).flatten(1) for e in context.errors]
    return _log(torch.cat(found, 1))


def complexity(context: ScoreContext) -> Tensor:
    """The bits a value that zlib needs for the image in 8 bits: simple images fit any model."""
    pages = to_uint8(_image(context.x))
    sizes = [8 * len(zlib.compress(pixels.tobytes(), 9)) / pixels.size for pixels in pages]
    return torch.tensor(sizes, dtype=torch.float64)


SCORES: dict[str, Score] = {
    "energy": energy,
    "dot": dot,
    "gradient-norm": gradient_norm,
    "work": work,
    "displacement": displacement,
    "restore": restore,
    "steps": steps,
    "loss": loss,
    "losses": losses,
    "residuals": residuals,
    "complexity": complexity,
}
"""Every score by its name; `losses` and `residuals` are several numbers an image."""


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
    probe = ScoreConfig(objective or EquilibriumMatching(), Sampling(), tuple(gammas), draws, seed)
    with torch.no_grad():
        return loss(ScoreContext(field, x, labels, probe))


def check_explicit(field: Any) -> None:
    """Raises ValueError for a field without an energy."""
    if not hasattr(field, "energy"):
        raise ValueError(
            "the score energy needs an explicit energy, such as DotEnergy; got an implicit field, "
            f"{type(field).__name__}: take dot, loss or combined, or train with --objective.energy dot"
        )


def _away(context: ScoreContext, end: Solution) -> Tensor:
    lost = [outcome is Outcome.DIVERGED for outcome in end.outcome]
    return norms(end.x - context.x).masked_fill(
        torch.tensor(lost, device=context.x.device), torch.inf
    )


def _image(x: Tensor) -> Tensor:
    """x (B, ...) as images: of what is none, each is one row of pixels."""
    return x if x.ndim == 4 else x.flatten(1)[:, None, None]


def _log(errors: Tensor) -> Tensor:
    return (errors + 1e-8).log()
