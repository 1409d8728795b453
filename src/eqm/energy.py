"""Explicit energies (EqM-E): scalars built from a network, and fields that are their gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqm.field import Field


class Energy(nn.Module):
    """A field that is the gradient of a scalar: call it for the gradient, `.energy` for the scalar.

    It turns autograd on by itself, so it is right under `no_grad` and `inference_mode`, in training
    and in eval mode; the graph for a second derivative is kept exactly when the caller's grad mode
    is on. The caller's tensors are not touched. While that graph is built, attention runs its plain
    kernel: the fused ones have no second derivative. The transforms of `torch.func` go through it.
    """

    kind: ClassVar[str]

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    @property
    def config(self) -> Any:
        """The sizes of the network."""
        return self.net.config

    @property
    def metadata(self) -> dict[str, Any]:
        """What was stored with the weights of the network."""
        return self.net.metadata  # type: ignore[return-value]

    def energy(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The energy of each sample, (B,), without units; lower is more like the data."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The gradient of the energy with respect to x, shape as x."""
        return self.energy_and_gradient(x, labels)[1]

    def energy_and_gradient(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The energy (B,) and its gradient, shape as x, for the cost of the gradient."""
        keep_graph = torch.is_grad_enabled()
        transformed = (
            torch._C._functorch.peek_interpreter_stack() is not None
            or forward_ad.unpack_dual(x).tangent is not None
        )
        attention: Callable[[], AbstractContextManager[object]] = (
            (lambda: sdpa_kernel(SDPBackend.MATH)) if keep_graph or transformed else nullcontext
        )
        with torch.inference_mode(False), torch.enable_grad(), attention():
            if transformed:  # forward mode and vmap do not go through autograd.grad

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
        """The same field compiled for training: faster after the first call, and as exact.

        What is compiled is the function transform `torch.func.grad`: compiling around autograd
        inside a graph, as `forward` does, has no second derivative. Inside, attention is plain.
        """

        def total(x: Tensor, labels: Tensor | None) -> Tensor:
            return self.energy(x, labels).sum()

        gradient = torch.compile(torch.func.grad(total), fullgraph=True)

        def field(x: Tensor, labels: Tensor | None = None) -> Tensor:
            # The graph stays whole under DDP, which would have it cut amid the transform.
            whole = torch._dynamo.config.patch(optimize_ddp=False)
            with sdpa_kernel(SDPBackend.MATH), whole:
                return gradient(x, labels)

        return field


class DotEnergy(Energy):
    """The dot-product energy `g(x) = <x, h(x)>`, its gradient `h + J^T x`.

    Section 3 of arXiv 2510.02300; h is the network and J its Jacobian."""

    kind = "dot"

    def energy(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return (x * self.net(x, labels)).flatten(1).sum(1)


class NormEnergy(Energy):
    """The squared-norm energy `g(x) = 1/2 ||h(x)||^2`, its gradient `J^T h`.

    It is bounded below, and 0 where the network h vanishes. The paper writes it with the other
    sign; this is what its code descends. With a zero-initialised output layer its parameters
    receive no gradient at all: start from the weights of a trained implicit model.
    """

    kind = "norm"

    def energy(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        # in the type of x: under autocast the network gives bfloat16, too coarse to sum thousands in
        return self.net(x, labels).to(x.dtype).square().flatten(1).sum(1) / 2
