"""Explicit energies (EqM-E): scalars built from a network, whose gradients are fields."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqm.checks import check_field, check_step
from eqm.field import Field


class Energy(nn.Module):
    """A field that is the gradient of a scalar: call it for the gradient, `.energy` for the scalar.

    It enables autograd itself, so it also works under `no_grad` and `inference_mode`. It keeps the
    graph for a second derivative only if the caller has gradients enabled; attention then uses the
    math kernel, because fused kernels have no second derivative. `torch.func` transforms work.
    """

    kind: ClassVar[str]

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        check_field(net)
        self.net = net

    @property
    def config(self) -> Any:
        """The configuration of the network."""
        return self.net.config

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata stored with the weights of the network."""
        return self.net.metadata  # type: ignore[return-value]

    def energy(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The energy of each sample, (B,); lower is more like the data."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The gradient of the energy with respect to x, shape as x."""
        return self.energy_and_gradient(x, labels)[1]

    def energy_and_gradient(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The energy (B,) and its gradient, shape as x, at the cost of the gradient alone."""
        check_step(self.net, labels, x=x)
        keep_graph = torch.is_grad_enabled()
        transformed = (
            torch._C._functorch.peek_interpreter_stack() is not None
            or forward_ad.unpack_dual(x).tangent is not None
        )
        attention: Callable[[], AbstractContextManager[object]] = (
            (lambda: sdpa_kernel(SDPBackend.MATH)) if keep_graph or transformed else nullcontext
        )
        with torch.inference_mode(False), torch.enable_grad(), attention():
            if transformed:  # autograd.grad does not work under forward mode and vmap

                def total(x: Tensor) -> tuple[Tensor, Tensor]:
                    energy = self.energy(x, labels)
                    return energy.sum(), energy

                gradient, energy = torch.func.grad(total, has_aux=True)(x)
                return energy, gradient
            x = x.clone() if x.is_inference() else x
            labels = labels.clone() if labels is not None and labels.is_inference() else labels
            x = x.view_as(x) if keep_graph and x.requires_grad else x.detach().requires_grad_()
            energy = self.energy(x, labels)
            (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=keep_graph)
        return (energy, gradient) if keep_graph else (energy.detach(), gradient)

    def compiled(self) -> Field:
        """The same field, compiled for training with `torch.func.grad` and the math kernel of attention.

        A compiled `forward` would have no second derivative, because it calls autograd inside the graph.
        """

        def total(x: Tensor, labels: Tensor | None) -> Tensor:
            return self.energy(x, labels).sum()

        gradient = torch.compile(torch.func.grad(total), fullgraph=True)

        def field(x: Tensor, labels: Tensor | None = None) -> Tensor:
            # DDP would cut the graph inside the transform.
            whole = torch._dynamo.config.patch(optimize_ddp=False)
            with sdpa_kernel(SDPBackend.MATH), whole:
                return gradient(x, labels)

        return field


class DotEnergy(Energy):
    """The dot-product energy `g(x) = <x, h(x)>` with gradient `h + J^T x`.

    h is the network, J its Jacobian. Section 3 of arXiv 2510.02300."""

    kind = "dot"

    def energy(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        # a copy, as the network may work in place
        return (x * self.net(x.clone(), labels)).flatten(1).sum(1)


class NormEnergy(Energy):
    """The squared-norm energy `g(x) = 1/2 ||h(x)||^2` with gradient `J^T h`.

    h is the network, J its Jacobian. The energy is bounded below. The paper writes it with the opposite
    sign, but its code descends this one. If the output layer is zero, as at initialisation, the weights
    get no gradient: start from a trained implicit model.
    """

    kind = "norm"

    def energy(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        # in the dtype of x: under autocast the network returns bfloat16, too coarse for a long sum
        return self.net(x.clone(), labels).to(x.dtype).square().flatten(1).sum(1) / 2
