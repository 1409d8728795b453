"""Training objectives: equilibrium matching, and flow matching as the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from eqm.checks import check_callable, check_kind, check_samples, check_step
from eqm.corruption import ConstantDecay, Decay, TruncatedDecay, corrupt
from eqm.difference import difference_loss
from eqm.field import Field, evaluate
from eqm.gammas import Distribution, Uniform, as_distribution
from eqm.shapes import per_sample


@dataclass(frozen=True)
class EquilibriumMatching:
    """The equilibrium matching loss, `|| field(x_gamma) - (noise - data) * c(gamma) ||^2`.

    Eq. 3 of arXiv 2510.02300. x_gamma is `corrupt(data, noise, gamma)` with normal noise, and gamma
    is uniform on [0, 1] or of another `distribution`. The field does not get gamma, except with
    `noise_conditioning`, an ablation of the paper: then it is called as `field(x, labels, gamma)`.

    >>> objective = EquilibriumMatching()
    >>> objective(lambda x, labels: x, torch.zeros(8, 2)).shape
    torch.Size([8])
    """

    decay: Decay = TruncatedDecay()
    noise_conditioning: bool = False
    difference: bool = False
    """Train an energy by finite differences (`eqm.difference.difference_loss`)."""
    distribution: Distribution = Uniform()
    """Of gamma, or of the weights of the losses (`eqm.gammas`); a function of gamma is a density."""

    def __post_init__(self) -> None:
        check_callable(decay=self.decay)
        object.__setattr__(self, "distribution", as_distribution(self.distribution))

    def __call__(
        self,
        field: Field,
        data: Tensor,
        labels: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        """The loss of each sample of `data` (B, ...), (B,), at random noise and gamma, weighted if the
        distribution says so.

        `generator` may be on another device than the data. Raises ValueError as `loss_at` does.
        """
        check_samples(data=data)
        if generator is not None:
            check_kind(Generator, generator=generator)
        device = data.device if generator is None else generator.device
        settings: Any = {"generator": generator, "device": device, "dtype": data.dtype}
        noise = torch.randn(data.shape, **settings).to(data.device)
        gamma, weight = self.distribution.draw(torch.rand(len(data), **settings).to(data.device))
        return weight * self.loss_at(field, data, labels, noise=noise, gamma=gamma)

    def loss_at(
        self,
        field: Field,
        data: Tensor,
        labels: Tensor | None = None,
        *,
        noise: Tensor,
        gamma: Tensor,
    ) -> Tensor:
        """The loss of each sample (B,), the mean over its elements, at the given noise and gamma.

        `data` and `noise` have shape (B, ...), `gamma` (B,). Raises ValueError if shapes do not
        match, the field returns another shape, or `difference` is set for a field without energy.
        """
        check_step(field, labels, data=data)
        labels = None if labels is None else labels.clone()  # fields may drop some in place
        x = corrupt(data, noise, gamma)
        target = (noise - data) * per_sample(self.decay(gamma).to(data.dtype), data)
        if self.difference and torch.is_grad_enabled():
            return difference_loss(field, x, target, labels)
        gradient = evaluate(field, x, labels, *([gamma] if self.noise_conditioning else []))
        return (gradient - target).square().flatten(1).mean(1)


@dataclass(frozen=True)
class FlowMatching(EquilibriumMatching):
    """The flow matching loss, the baseline: the field learns `noise - data`.

    Eq. 1 of arXiv 2510.02300 with our sign: minus the usual velocity. With `noise_conditioning` off
    it is equilibrium matching with a constant decay.
    """

    decay: Decay = ConstantDecay()
    noise_conditioning: bool = True
