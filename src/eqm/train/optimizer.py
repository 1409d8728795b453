"""The optimizers, AdamW and Muon, and the schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torch.optim.adamw import adamw

from eqm.energy import Energy
from eqm.models import Network
from eqm.train.config import OptimizerConfig
from eqm.train.distributed import local, whole

MAX_ENTRIES = 2**24
"""Muon orthogonalises matrices of at most so many entries at once, to bound the memory."""


def learning_rate_at(settings: OptimizerConfig, *, images: int, total: int) -> float:
    """The learning rate of the step after which `images` of `total` are seen.

    It is the highest learning rate times min(1, images / warmup), times

    - constant: 1
    - cosine, linear, sqrt: (1 + cos(pi p)) / 2, 1 - p, 1 - sqrt(p), where p goes from 0 to 1 over
      the last `cooldown` of the run, and stays 1
    - inverse-sqrt: 1 / sqrt(max(1, images / hold))

    A run that is resumed with another `total` follows the new schedule from there. The sqrt cooldown
    is from arXiv 2405.18392, inverse-sqrt from arXiv 2312.02696.

    >>> settings = OptimizerConfig(learning_rate=0.1, schedule="linear", cooldown=0.5)
    >>> [round(learning_rate_at(settings, images=n, total=8), 3) for n in (1, 4, 6, 8)]
    [0.1, 0.1, 0.05, 0.0]
    """
    rate = settings.learning_rate * min(1.0, images / max(settings.warmup, 1))
    fall = settings.cooldown * total
    progress = min(max((images - (total - fall)) / fall, 0.0), 1.0)
    match settings.schedule:
        case "constant":
            return rate
        case "cosine":
            return rate * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return rate * (1 - progress)
        case "sqrt":
            return rate * (1 - math.sqrt(progress))
        case "inverse-sqrt":
            return rate / math.sqrt(max(1.0, images / max(settings.hold, 1)))


def make_optimizer(
    model: nn.Module, settings: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of `settings` for the trainable weights of `model`, which are on `device`.

    There are three groups: hidden matrices and convolution kernels, which Muon updates; matrices and
    kernels of outer layers; and vectors, position maps and embeddings, which have no weight decay.
    Shard the model first. The `state_dict` has the form of torch's optimizers.
    """
    vectors = {
        *(id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)),
        *(id(w) for m in model.modules() if isinstance(m, nn.ParameterList) for w in m),
    }
    outside = {id(w) for layer in _outer_layers(model) for w in layer.parameters()}
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


def _outer_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that the network declares as outer; none if it declares none."""
    net = model.net if isinstance(model, Energy) else model
    return net.outer_layers() if isinstance(net, Network) else []


class Muon(torch.optim.Optimizer):
    """Updates groups marked `orthogonal` by Muon, the others by AdamW.

    mean <- momentum mean + (1 - momentum) gradient
    weight <- (1 - lr weight_decay) weight - 0.2 sqrt(max(m, n)) lr UV^T

    where U S V^T is the Nesterov gradient, (1 - momentum) gradient + momentum mean, as a matrix
    (m, n). A convolution kernel becomes a matrix with a row for each output channel. The factor gives
    the step the size of AdamW's, so that one learning rate suits both (Jordan et al., 2024,
    kellerjordan.github.io/posts/muon, with the scale of arXiv 2502.16982).

    `torch.optim.Muon` takes no kernels and needs torch 2.9; on matrices the two agree. Every process
    gathers a sharded matrix and orthogonalises it whole. If `found_inf`, a scalar on the device, is
    1, nothing changes, as in torch's fused optimizers.
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
        """The loss of `closure`, if given, after one step of all weights with gradients."""
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
        taken = 1.0 if bad is None else 1 - bad  # 0 on the device where the step is skipped
        rate, towards = group["lr"] * taken, (1 - group["momentum"]) * taken
        for alike in _alike(weights):
            ahead = []
            for weight in alike:
                state, gradient = self.state[weight], weight.grad
                assert gradient is not None
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                own = local(gradient)
                if self.grad_scale is not None:
                    own.div_(self.grad_scale)
                if bad is not None:
                    own.masked_fill_(bad > 0, 0)
                local(state["mean"]).lerp_(own, towards)
                ahead.append(whole(gradient.lerp(state["mean"], group["momentum"])).flatten(1))
            size = 0.2 * math.sqrt(max(ahead[0].shape))
            for weight, update in zip(alike, orthogonalised(torch.stack(ahead)), strict=True):
                update = update.reshape(weight.shape).to(weight.dtype)
                target = local(weight)
                target.mul_(1 - rate * group["weight_decay"])
                target.sub_(_part(update, weight) * (rate * size))

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
    """Approximately UV^T of each matrix U S V^T, with singular values between 0.7 and 1.2.

    (..., m, n) in `dtype`, by default bfloat16, or float32 on the CPU, where it is faster. Five steps
    of a fifth-order Newton-Schulz iteration with Jordan's coefficients (2024).
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
    """The weights in lists of one shape and at most `MAX_ENTRIES` entries.

    An accelerator takes about as long for many small matrices as for one. On a CPU each list has one
    weight."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        by_shape.setdefault(weight.shape, []).append(weight)
    for shape, alike in by_shape.items():
        together = 0 if alike[0].device.type == "cpu" else MAX_ENTRIES
        count = max(together // shape.numel(), 1)
        yield from (alike[first : first + count] for first in range(0, len(alike), count))


def _part(full: Tensor, like: Tensor) -> Tensor:
    """The part of `full` that this process holds, sharded like `like`."""
    if not isinstance(like, DTensor):
        return full
    mesh = like.device_mesh
    everywhere = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, like.placements).to_local()
