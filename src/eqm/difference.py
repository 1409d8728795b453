"""Training an explicit energy by differences of ordinary passes, without a second derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.energy import Energy
from eqm.shapes import per_sample


def difference_loss(
    energy: Energy,
    x: Tensor,
    target: Tensor,
    labels: Tensor | None = None,
    *,
    central: bool = False,
) -> Tensor:
    """The loss of each sample (B,), the mean of `(gradient - target)^2`, without a second derivative.

    Its value is exact. Its gradient with respect to the weights is a difference of ordinary passes:
    with the residual r = gradient - target held fixed it is 2/D times the derivative of the
    energy's weight gradient along r, and that is taken between x and x + h r, or with `central`
    between x - h r and x + h r. Attention stays fused, and DDP sees nothing but forward passes
    and one backward pass. The weight gradients of small networks are off by
    some 1e-3 to 2e-3 of their norm for a dot energy, by some 1e-4 `central`, which costs another
    forward pass; those of a norm energy by several times as much.

    `target` has the shape of x (B, ...).
    Raises ValueError in half precision, where differences this small are lost, and for other shapes.
    """
    low = x.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(x.device.type)
    if low:
        raise ValueError(
            "the difference of two energies needs float32; got half precision or autocast: "
            "set precision float32, or take the exact gradient"
        )
    if target.shape != x.shape:
        raise ValueError(
            f"target must have the shape of x, {tuple(x.shape)}; got {tuple(target.shape)}"
        )
    x = x.detach().requires_grad_()
    here = energy.energy(x, labels)
    (gradient,) = torch.autograd.grad(here.sum(), x, retain_graph=not central)
    residual = gradient - target
    loss = residual.square().flatten(1).mean(1)
    # A step is a fixed share of the way from the origin: large enough for float32 to see the
    # difference, small enough for the curvature not to matter.
    lengths = residual.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    step = _SHARE[central] * x.detach().flatten(1).norm(dim=1) / lengths  # (B,)
    way = per_sample(step, x) * residual
    x = x.detach()
    rise = energy.energy(x + way, labels) - (energy.energy(x - way, labels) if central else here)
    slope = rise * (2 / residual[0].numel() / ((1 + central) * step))
    return loss + (slope - slope.detach())


_SHARE = {False: 5e-4, True: 4e-3}
