"""The optimizers: AdamW in one kernel, and Muon for hidden matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from eqm.train.blocks import outer_layers_of
from eqm.train.settings import OptimizerConfig

TOGETHER = 2**24
"""Entries of the matrices that are orthogonalised at once, which bounds the memory for it."""


def make_optimizer(
    model: nn.Module, settings: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of `settings` for the trainable weights of `model`, which are on `device`.

    Weights fall into groups: hidden matrices (of linear layers, and kernels of convolutions, but
    those of the first, the last and the conditioning layers), which Muon orthogonalises if it is
    asked for; other matrices and kernels; and vectors, maps and embeddings, which never decay. Build
    it after the model is sharded. The state_dict is one of torch, whatever the name.
    """
    vectors = {
        *(id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)),
        *(id(w) for m in model.modules() if isinstance(m, nn.ParameterList) for w in m),
    }
    outside = {id(w) for layer in outer_layers_of(model) for w in layer.parameters()}
    hidden: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or id(parameter) in vectors:
            rest.append(parameter)
        elif id(parameter) in outside:
            outer.append(parameter)
        else:
            hidden.append(parameter)
    muon = settings.name == "muon"
    decayed = {"weight_decay": settings.weight_decay}
    groups: list[dict[str, Any]] = [
        {"params": hidden if muon else [], "orthogonal": True, **decayed},
        {"params": outer if muon else hidden + outer, **decayed},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = device.type != "mps"
    if muon:
        return Muon(
            groups,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            momentum=settings.momentum,
            fused=fused,
        )
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=fused
    )


class Muon(torch.optim.Optimizer):
    """Steps groups marked `orthogonal` along their orthogonalised momentum, the others by AdamW.

    mean <- momentum mean + (1 - momentum) gradient
    weight <- (1 - lr weight_decay) weight - 0.2 sqrt(max(m, n)) lr UV^T

    where U S V^T is the gradient looked ahead, (1 - momentum) gradient + momentum mean, as a matrix
    (m, n); kernels of convolutions are matrices of their output channels. The factor gives
    the step the size that AdamW's has, so that one learning rate serves both (Jordan et al., 2024,
    kellerjordan.github.io/posts/muon, with the scale of arXiv 2502.16982).

    `torch.optim.Muon` takes no kernels and came with torch 2.9; on matrices the two agree. A
    sharded matrix is gathered, and every process orthogonalises it whole. Like torch's fused
    optimizers it leaves everything as it was where `found_inf`, a scalar on the device, is 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        fused: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum}
        defaults |= {"weight_decay": weight_decay, "fused": fused, "orthogonal": False}
        super().__init__(params, defaults)
        self.grad_scale: Tensor | None = None
        self.found_inf: Tensor | None = None
        self._step_supports_amp_scaling = fused

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """The loss of `closure`, if there is one, after one step of all weights with gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            (self._step_matrices if group["orthogonal"] else self._step_others)(group, weights)
        return loss

    def _step_matrices(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        bad = self.found_inf
        share = 1.0 if bad is None else 1 - bad  # of the step that is taken, told on the device
        rate, towards = group["lr"] * share, (1 - group["momentum"]) * share
        for alike in _alike(weights):
            ahead = []
            for weight in alike:
                state, gradient = self.state[weight], weight.grad
                assert gradient is not None
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                local, mean = _local(gradient), _local(state["mean"])
                if self.grad_scale is not None:
                    local.div_(self.grad_scale)
                if bad is not None:
                    local.masked_fill_(bad > 0, 0)
                mean.lerp_(local, towards)
                ahead.append(_whole(gradient.lerp(state["mean"], group["momentum"])).flatten(1))
            size = 0.2 * math.sqrt(max(ahead[0].shape))
            for weight, update in zip(alike, orthogonalised(torch.stack(ahead)), strict=True):
                whole = update.reshape(weight.shape).to(weight.dtype)
                target = _local(weight)
                target.mul_(1 - rate * group["weight_decay"])
                target.sub_(_part(whole, weight) * (rate * size))

    def _step_others(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for weight in weights:
            state = self.state[weight]
            if not state:
                on = weight.device if group["fused"] else torch.device("cpu")
                state["step"] = torch.zeros((), dtype=torch.float32, device=on)
                state["exp_avg"] = torch.zeros_like(weight)
                state["exp_avg_sq"] = torch.zeros_like(weight)
        states = [self.state[weight] for weight in weights]
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            grad_scale=self.grad_scale,
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalised(matrices: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """About UV^T of each of the `matrices` U S V^T: singular values between 0.7 and 1.2.

    (..., m, n) in `dtype`. Five steps of a Newton-Schulz iteration of the fifth order, whose
    coefficients are Jordan's (2024), in bfloat16 by default, on the CPU in float32, which is
    faster there.
    """
    dtype = dtype or (torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def _alike(weights: list[Tensor]) -> Iterator[list[Tensor]]:
    """The weights in lists of one shape, no longer than `TOGETHER` allows: an accelerator takes
    about as long for many small matrices as for one. On a CPU, where it takes longer, each by
    itself."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        by_shape.setdefault(weight.shape, []).append(weight)
    for shape, alike in by_shape.items():
        together = 0 if alike[0].device.type == "cpu" else TOGETHER
        count = max(together // shape.numel(), 1)
        yield from (alike[first : first + count] for first in range(0, len(alike), count))


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _local(tensor: Any) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _part(whole: Tensor, weight: Any) -> Tensor:
    """The part of `whole` that this process has, as `weight` is sharded."""
    if not hasattr(weight, "device_mesh"):
        return whole
    from torch.distributed.tensor import DTensor, Replicate  # takes a second to import

    mesh = weight.device_mesh
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, weight.placements).to_local()
