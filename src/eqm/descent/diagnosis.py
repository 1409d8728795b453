"""What a field is like: how far from a gradient, how stiff, and which steps it therefore bears."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqm.descent.checks import check_count
from eqm.descent.driver import descend
from eqm.descent.rules import Rule
from eqm.field import Field
from eqm.shapes import norms, per_sample


def curl(
    field: Field, x: Tensor, labels: Tensor | None = None, *, probes: int = 16, seed: int = 0
) -> Tensor:
    """How far the field is from any gradient at each of x (B, ...), (B,): 0 is a gradient, 1 a pure
    rotation.

    || (J - J^T) / 2 || / || J ||  in the Frobenius norm, J the Jacobian of the field at x

    A field is the gradient of an energy where J is symmetric. The norms are estimated from the
    products of J and of J^T with `probes` random directions, the same for each sample; with as many
    probes as x has elements the directions are the axes, and the result exact. NaN where J is not
    finite. Costs one evaluation that keeps its graph and three backward passes a probe.

    >>> turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    >>> curl(lambda x, labels: x @ turn.T, torch.ones(1, 2))
    tensor([0.7071])
    """
    check_count(probes=probes)
    skew, size = torch.zeros(2, len(x), device=x.device, dtype=x.dtype)
    # The plain kernel of attention is the one with a second derivative.
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        x = x.detach().clone().requires_grad_()
        gradient = field(x, labels)
        if not gradient.requires_grad:  # it does not depend on x
            return skew
        weight = torch.zeros_like(gradient, requires_grad=True)
        # J^T w is linear in w: its own vector-Jacobian product is the forward one, J v.
        (pulled,) = torch.autograd.grad(gradient, x, weight, create_graph=True)
        for direction in _directions(x, probes, seed):
            v = direction.expand_as(x)
            (backward,) = torch.autograd.grad(gradient, x, v, retain_graph=True)
            (forward,) = torch.autograd.grad(pulled, weight, v, retain_graph=True)
            skew = skew + norms(forward - backward).square()
            size = size + norms(forward).square() + norms(backward).square()
    return (skew / (2 * size)).masked_fill(size == 0, 0.0).sqrt().detach()


@torch.no_grad()
def stiffness(
    field: Field, x: Tensor, labels: Tensor | None = None, *, iterations: int = 20, seed: int = 0
) -> Tensor:
    """The size of the largest eigenvalue of the field's Jacobian at each of x (B, ...), (B,).

    It sets the largest stable step: below 2 / stiffness for gradient descent, below `stability_limit` /
    stiffness for any rule. The default landscape has 20 at the data. By power iteration, from below,
    on central differences of ordinary evaluations, two an iteration: exact to some per cent, for x
    in float32 or float64.

    >>> stiffness(lambda x, labels: 20 * x, torch.ones(1, 3))
    tensor([20.0000])
    """
    check_count(iterations=iterations)
    direction = torch.randn(x.shape[1:], generator=Generator().manual_seed(seed)).to(x)
    v, width = direction.expand_as(x), torch.finfo(x.dtype).eps ** (1 / 3)
    growth, length = norms(x), math.sqrt(max(1, math.prod(x.shape[1:])))
    for _ in range(iterations):
        v = v * per_sample(length / norms(v).clamp(min=torch.finfo(x.dtype).tiny), x)
        v = (field(x + width * v, labels) - field(x - width * v, labels)).to(x) / (2 * width)
        growth = norms(v) / length
    return growth


def stability_limit(rule: Rule) -> float | None:
    """The largest step size times stiffness at which a rule still comes to rest, to 0.005.

    2 for gradient descent, 2 / (1 + 2 momentum) for the paper's look-ahead, 1 for Adams-Bashforth
    of order 2. Found by 400 steps down bowls of all curvatures: with a momentum near 1, which takes
    longer to come to rest, it is a little too low. None for rules that have no step size, choose their
    own, or are not linear in the gradient, such as `Adam`.

    >>> from eqm.descent import NesterovLookahead
    >>> round(stability_limit(NesterovLookahead(0.02, 0.3)), 2)
    1.25
    """
    if not hasattr(rule, "step_size"):
        return None
    unit: Any = replace(rule, step_size=1.0)  # type: ignore[type-var]
    curvature = torch.arange(1, 801, dtype=torch.float64) / 200  # up to 4
    start = torch.ones(len(curvature), 1, dtype=torch.float64)

    def bowls(x: Tensor, labels: Tensor | None) -> Tensor:
        return x * curvature[labels, None]

    rows = torch.arange(len(curvature))
    once, twice = (descend(bowls, s, rows, rule=unit, max_steps=400).x for s in (start, 2 * start))
    stable = once.flatten().abs() < 1
    if stable.all() or not stable[0] or not torch.allclose(2 * once[stable], twice[stable]):
        return None
    return float(curvature[~stable][0])


def _directions(x: Tensor, probes: int, seed: int) -> Tensor:
    size = math.prod(x.shape[1:])
    if probes >= size:
        return torch.eye(size, dtype=x.dtype, device=x.device).view(size, *x.shape[1:])
    generator = Generator().manual_seed(seed)
    return torch.randn(probes, *x.shape[1:], generator=generator).to(x)
