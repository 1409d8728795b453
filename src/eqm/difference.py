"""Training an explicit energy by finite differences, without a second derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.energy import Energy
from eqm.field import Field
from eqm.shapes import per_sample

_FRACTION = 5e-4
"""The length of h r relative to x: large enough for float32, small enough for curvature."""


def difference_loss(
    energy: Field, x: Tensor, target: Tensor, labels: Tensor | None = None
) -> Tensor:
    """The loss of each sample (B,), the mean of `(gradient - target)^2`, without a second derivative.

    The value is exact; its gradient with respect to the weights is approximate. With the residual
    r = gradient - target held fixed, that gradient is 2/D times the derivative of the energy's weight
    gradient in the direction r. It is the difference between x and x + h r. The relative error for small
    networks is 1e-3 to 2e-3 for a dot energy, and several times that for a norm energy.

    Attention can use fused kernels, and DDP works: there are only forward passes and one backward pass.

    Raises ValueError for a field without energy, in half precision, which is too coarse, and unless
    `target` has the shape of x (B, ...).
    """
    if not isinstance(energy, Energy):
        raise ValueError(
            f"difference needs a DotEnergy or NormEnergy; got {type(energy).__name__}: "
            "set difference to False"
        )
    low = x.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(x.device.type)
    if low:
        raise ValueError(
            "finite differences of an energy need float32; got half precision or autocast: "
            "set precision to float32, or use the exact gradient"
        )
    if target.shape != x.shape:
        raise ValueError(
            f"target must have the shape of x, {tuple(x.shape)}; got {tuple(target.shape)}"
        )
    x = x.detach().requires_grad_()
    here = energy.energy(x, labels)
    (gradient,) = torch.autograd.grad(here.sum(), x, retain_graph=True)
    residual = gradient - target
    loss = residual.square().flatten(1).mean(1)
    lengths = residual.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    step = _FRACTION * x.detach().flatten(1).norm(dim=1) / lengths  # (B,)
    shift = per_sample(step, x) * residual
    x = x.detach()
    rise = energy.energy(x + shift, labels) - here
    slope = rise * (2 / residual[0].numel() / step)
    return loss + (slope - slope.detach())
