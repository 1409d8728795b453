"""Anomaly scores: how unlike the training images an image is. Higher = more anomalous."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from eqm.checks import check_call, kind_of, seeded
from eqm.corruption import corrupt, decay_of
from eqm.descent.driver import Outcome, Solution, descend
from eqm.descent.stopping import RelativeGradientNorm, Stop
from eqm.descent.trajectory import measure_trajectory, record_trajectory
from eqm.field import Field, gradient_at
from eqm.objective import EquilibriumMatching
from eqm.pictures import to_uint8
from eqm.registry import register
from eqm.sampling.labels import Labels
from eqm.sampling.model import describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import labels_of
from eqm.schema import check_fields
from eqm.shapes import norms
from eqm.tasks.residuals import ResidualGaussian

GAMMAS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
CELLS = 4
"""The score `residuals` divides an image into CELLS x CELLS cells, and other samples into as many parts."""
START = 0.5
"""The gamma at which the scores `reconstruction` and `steps` start."""
RATIO = 0.2
"""The score `steps` counts until the gradient norm is this fraction of its first value."""

Gammas = Annotated[
    tuple[Annotated[float, Meta(ge=0, le=1)], ...], Meta(min_length=1, max_length=1000)
]
Draws = Annotated[int, Meta(ge=1, le=1000)]
AnySeed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True)
class ScoreConfig:
    """The settings of a score. They are the same for all images: a score depends on its image alone."""

    objective: EquilibriumMatching
    """The objective that the field was trained with."""
    sampling: Sampling = Sampling()
    """How to descend; stop and guidance are ignored."""
    gammas: Gammas = GAMMAS
    """Noise levels of the training loss, from 0 (noise) to 1 (the clean image)."""
    draws: Draws = 1
    """Noise samples for each gamma below 1."""
    seed: AnySeed = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        if not isinstance(self.objective, EquilibriumMatching):
            raise ValueError(
                f"objective must be an EquilibriumMatching; got {kind_of(self.objective)}"
            )
        check_fields(self)

    @classmethod
    def of(
        cls, field: Field, *, gammas: Sequence[float] = GAMMAS, draws: int = 1, seed: int = 0
    ) -> ScoreConfig:
        """The settings for a field, with the decay and the sampling settings of its metadata.

        Raises ValueError for settings that are out of range.
        """
        info = describe(field)
        stored = Sampling.of(info.metadata)
        sampling = replace(stored, multistep_coefficients=())  # they are for descents from noise
        objective = EquilibriumMatching(decay_of(field), info.noise_conditioning)
        return cls(objective, sampling, as_gammas(gammas), draws, seed)


@dataclass(frozen=True, eq=False)
class ScoreContext:
    """A batch of images x (B, ...) and what scores need to know. Shared results are computed once."""

    field: Field
    x: Tensor
    labels: Tensor | None
    config: ScoreConfig
    usual: ResidualGaussian | None = None
    """What the field gets wrong on training images; only the score `gaussian` needs it."""

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient at the images, (B, ...)."""
        return self._gradient_at(self.x, 1.0)

    @cached_property
    def errors(self) -> Tensor:
        """The squared error of the field on noisy images, the mean over draws, (G, B, ...) for G
        gammas."""
        return torch.stack(
            [
                torch.stack([residual.square() for residual in draws]).mean(0)
                for draws in self.residuals()
            ]
        )

    def residuals(self) -> Iterator[list[Tensor]]:
        """For each gamma what the field gets wrong at each draw of noise, (B, ...): the field less the
        target of the training loss."""
        generator = seeded(self.config.seed)
        for gamma in self.config.gammas:
            level, found = self._full(gamma), []
            for _ in range(self.config.draws if gamma < 1 else 1):
                noise = self._noise(generator)
                target = (noise - self.x) * self.config.objective.decay(
                    self.x.new_full((1,), gamma)
                ).item()
                found.append(self._gradient_at(corrupt(self.x, noise, level), gamma) - target)
            yield found

    @cached_property
    def distances(self) -> Tensor:
        """How unusual the residuals at each place are, (B, h, w) on the CPU: 1 = as on training images."""
        if self.usual is None:
            raise ValueError(
                "the score gaussian needs the residuals of training images: train with "
                "eqm.tasks.train_detector, or choose another score"
            )
        return self.usual.distances(self.mean_residual)

    @cached_property
    def mean_residual(self) -> Tensor:
        """What the field gets wrong in units of noise minus image, the mean over gammas and draws, (B, ...).

        Each residual is divided by the decay. Raises ValueError for a gamma at which the decay is 0."""
        found = []
        for gamma, draws in zip(self.config.gammas, self.residuals(), strict=True):
            decay = float(self.config.objective.decay(self.x.new_full((1,), gamma)))
            if decay == 0:
                raise ValueError(
                    f"the score gaussian needs gammas at which the decay is not 0; got {gamma:g}: leave it out"
                )
            found.append(torch.stack(draws).mean(0) / decay)
        return torch.stack(found).mean(0)

    def noisy(self) -> Tensor:
        """The images, mixed with noise at gamma = START."""
        noise = self._noise(seeded(self.config.seed))
        return corrupt(self.x, noise, self._full(START))

    def descend(self, start: Tensor, stop: Stop | None = None) -> Solution:
        """The descent from `start` (B, ...), until `stop` or the path length of the settings.

        Raises ValueError for a noise-conditioned model.
        """
        self.check_descends()
        rule, steps = self.config.sampling.make_rule(), self.config.sampling.max_steps
        return descend(self.field, start, self.labels, rule=rule, stop=stop, max_steps=steps)

    def check_descends(self) -> None:
        """Raises ValueError for a noise-conditioned model."""
        if self.config.objective.noise_conditioning:
            raise ValueError(
                "this score descends, and a noise-conditioned model cannot: "
                "use the score loss or combined"
            )

    def _gradient_at(self, x: Tensor, gamma: float) -> Tensor:
        conditioned = self.config.objective.noise_conditioning
        given = (x, self.labels, self._full(gamma)) if conditioned else (x, self.labels)
        return gradient_at(self.field, *given)

    def _full(self, gamma: float) -> Tensor:
        return self.x.new_full((len(self.x),), gamma)

    def _noise(self, generator: torch.Generator) -> Tensor:
        """The same noise for all images."""
        shape = self.x.shape[1:]
        noise = torch.randn(shape, generator=generator, dtype=self.x.dtype)
        return noise.to(self.x.device).expand_as(self.x)


Score = Callable[[ScoreContext], Tensor | tuple[Tensor, ...]]
"""What a registered score is: one number an image, (B,), several, (B, K), or a tuple of those.

The detector turns several numbers into one Mahalanobis distance, and adds the distances of a tuple.
"""


@register("score", "energy")
def energy(context: ScoreContext) -> Tensor:
    """The energy of an explicit model (EqM-E)."""
    check_explicit(context.field)
    found: Tensor = context.field.energy(context.x.clone(), context.labels)  # type: ignore[attr-defined]
    return found


@register("score", "dot")
def dot(context: ScoreContext) -> Tensor:
    """The dot product of image and gradient, <x, f(x)>: the paper's score, for an implicit field."""
    return (context.x * context.gradient).flatten(1).sum(1)


@register("score", "gradient-norm")
def gradient_norm(context: ScoreContext) -> Tensor:
    """The norm of the gradient at the image: it is small at training images."""
    return norms(context.gradient)


@register("score", "work")
def work(context: ScoreContext) -> Tensor:
    """The work of the field during the descent from the image, the line integral of -f . dx; infinite
    where it diverges."""
    context.check_descends()
    rule, steps = context.config.sampling.make_rule(), context.config.sampling.max_steps
    trajectory = record_trajectory(
        context.field, context.x, context.labels, rule=rule, at=range(steps + 1), max_steps=steps
    )
    work = -measure_trajectory(context.field, trajectory, context.labels).work[-1]
    return work.masked_fill(trajectory.diverged, torch.inf)


@register("score", "displacement")
def displacement(context: ScoreContext) -> Tensor:
    """The distance from the image to the end of its descent; infinite where it diverges."""
    return _distance(context, context.descend(context.x))


@register("score", "reconstruction")
def reconstruction(context: ScoreContext) -> Tensor:
    """The distance from the image to the end of a descent from the noisy image."""
    return _distance(context, context.descend(context.noisy()))


@register("score", "steps")
def steps(context: ScoreContext) -> Tensor:
    """The steps from the noisy image until the gradient norm has fallen to a fifth; infinite where it
    diverges."""
    end = context.descend(context.noisy(), RelativeGradientNorm(RATIO))
    return end.steps.double().masked_fill(_diverged(end), torch.inf)


@register("score", "loss")
def loss(context: ScoreContext) -> Tensor:
    """The training loss (Eq. 3 of arXiv 2510.02300), the mean over gammas and draws."""
    return context.errors.flatten(2).mean(2).mean(0)


@register("score", "losses")
def losses(context: ScoreContext) -> Tensor:
    """The logarithm of the training loss at each gamma, (B, G)."""
    return _log(context.errors.flatten(2).mean(2).T)


@register("score", "residuals")
def residuals(context: ScoreContext) -> Tensor:
    """The logarithm of the training loss in each cell of a grid at each gamma, (B, K).

    Samples that are not images are cut into up to 16 parts. Every value counts in one part only.
    """
    return _log(torch.cat([_parts(errors) for errors in context.errors], 1))


@register("score", "gaussian")
def gaussian(context: ScoreContext) -> Tensor:
    """The largest cell of the map of distances between residuals and those of training images."""
    return context.distances.flatten(1).amax(1)


@register("score", "complexity")
def complexity(context: ScoreContext) -> Tensor:
    """The bits a value that zlib needs for the image in 8 bits: simple images fit any model."""
    pages = to_uint8(_image(context.x))
    sizes = [8 * len(zlib.compress(pixels.tobytes(), 9)) / pixels.size for pixels in pages]
    return torch.tensor(sizes, dtype=torch.float64)


@register("score", "combined")
def combined(context: ScoreContext) -> tuple[Tensor, ...]:
    """`losses` with `complexity` (Serra et al., arXiv 1909.11480), and `residuals`."""
    jointly = torch.column_stack([as_columns(losses(context)), complexity(context)])
    return jointly, residuals(context)


def as_columns(score: Tensor) -> Tensor:
    """A score (B,) or (B, K) as (B, K) float64 on the CPU."""
    score = score.to("cpu", torch.float64)
    return score[:, None] if score.ndim == 1 else score


def matching_error(
    field: Field,
    x: Tensor,
    labels: Labels = None,
    *,
    objective: EquilibriumMatching | None = None,
    gammas: Sequence[float] = (0.5, 0.7),
    draws: int = 8,
    seed: int = 0,
) -> Tensor:
    """The training loss of each image of x (B, ...), (B,): higher = more anomalous.

    The mean of `|| field(x_gamma) - (noise - x) c(gamma) ||^2` per element (Eq. 3 of arXiv
    2510.02300) over `gammas` and `draws` of noise, which are the same for every image. The field has
    learnt the way back to training images only, so its error is larger on others. `objective` is
    the one that the field was trained with. Costs one evaluation for each gamma and draw.

    Raises ValueError for what are no samples, labels or objective, and settings out of range.
    """
    objective = EquilibriumMatching() if objective is None else objective
    config = ScoreConfig(objective, Sampling(), as_gammas(gammas), draws, seed)
    check_call(field, x, None)
    chosen = labels_of(field, labels, x)
    with torch.no_grad():
        return loss(ScoreContext(field, x, chosen, config))


def as_gammas(gammas: Sequence[float]) -> tuple[float, ...]:
    """The gammas as a tuple. Raises ValueError for what are no numbers in a row."""
    if isinstance(gammas, str | dict | set) or not isinstance(gammas, Iterable):
        raise ValueError(f"gammas must be one or more numbers; got {kind_of(gammas)}")
    if getattr(gammas, "ndim", 1) != 1:
        raise ValueError(f"gammas must be one or more numbers; got {kind_of(gammas)}")
    listed = getattr(gammas, "tolist", lambda: gammas)()  # of tensors and arrays
    return tuple(listed)


def check_explicit(field: Any) -> None:
    """Raises ValueError for a field without an energy."""
    if not hasattr(field, "energy"):
        raise ValueError(
            "the score energy needs an explicit energy, such as DotEnergy; got an implicit field, "
            f"{type(field).__name__}: use dot, loss or combined, or train with --objective.energy dot"
        )


def _distance(context: ScoreContext, end: Solution) -> Tensor:
    return norms(end.x - context.x).masked_fill(_diverged(end), torch.inf)


def _diverged(end: Solution) -> Tensor:
    diverged = [outcome is Outcome.DIVERGED for outcome in end.outcome]
    return torch.tensor(diverged, dtype=torch.bool, device=end.x.device)


def _image(x: Tensor) -> Tensor:
    """x (B, ...) as images (B, C, H, W); other samples become one row of pixels."""
    return x if x.ndim == 4 else x.flatten(1)[:, None, None]


def _parts(errors: Tensor) -> Tensor:
    """The means of the parts of a sample, (B, parts), from errors (B, ...)."""
    if errors.ndim == 4:
        cells = min(CELLS, errors.shape[2]), min(CELLS, errors.shape[3])
        return adaptive_avg_pool2d(errors.mean(1), cells).flatten(1)
    flat = errors.flatten(1)
    parts = flat.tensor_split(min(CELLS**2, flat.shape[1]), 1)
    return torch.stack([part.mean(1) for part in parts], 1)


def _log(errors: Tensor) -> Tensor:
    return (errors + 1e-8).log()
