"""Properties of a field: its curl, its stiffness and the largest stable step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqm.checks import check_call, check_count, check_descent, seeded
from eqm.descent.driver import descend
from eqm.descent.rules.rule import Rule
from eqm.field import Field, gradient_at
from eqm.shapes import norms, per_sample


def curl(
    field: Field, x: Tensor, labels: Tensor | None = None, *, probes: int = 16, seed: int = 0
) -> Tensor:
    """How far the field is from a gradient at each of x (B, ...), (B,): 0 for a gradient, 1 for a
    rotation.

    || (J - J^T) / 2 || / || J ||  in the Frobenius norm; J is the Jacobian of the field at x

    A field is the gradient of an energy if J is symmetric. The norms are estimated from products of J
    and J^T with `probes` random directions, the same for all samples; with as many probes as x has
    elements the result is exact. NaN where J is not finite. Costs one evaluation with its graph and
    three backward passes a probe.

    >>> turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    >>> curl(lambda x, labels: x @ turn.T, torch.ones(1, 2))
    tensor([0.7071])
    """
    check_count(probes=probes)
    check_call(field, x, labels)
    skew, size = torch.zeros(2, len(x), device=x.device, dtype=x.dtype)
    # fused kernels of attention have no second derivative
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        x = x.detach().clone().requires_grad_()
        gradient = gradient_at(field, x, labels)
        if not gradient.requires_grad:  # the field is constant
            return skew
        weight = torch.zeros_like(gradient, requires_grad=True)
        # J^T w is linear in w: its vector-Jacobian product is J v
        (pulled,) = torch.autograd.grad(gradient, x, weight, create_graph=True, allow_unused=True)
        if pulled is None:  # the field is constant, and its parameters have gradients
            return skew
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
    """The largest absolute eigenvalue of the field's Jacobian at each of x (B, ...), (B,).

    Stable step sizes are below `stability_limit(rule)` / stiffness, 2 / stiffness for gradient descent.
    With the default decay the stiffness at the data is 20. Estimated by power iteration with finite
    differences, two evaluations an iteration, to a few per cent; x must be float32 or float64.

    >>> stiffness(lambda x, labels: 20 * x, torch.ones(1, 3))
    tensor([20.0000])
    """
    check_count(iterations=iterations)
    check_call(field, x, labels)
    if x.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(f"x must be float32 or float64; got {x.dtype}: convert it by x.float()")
    direction = torch.randn(x.shape[1:], generator=seeded(seed)).to(x)
    v, width = direction.expand_as(x), torch.finfo(x.dtype).eps ** (1 / 3)
    growth, length = norms(x), math.sqrt(max(1, math.prod(x.shape[1:])))
    for _ in range(iterations):
        v = v * per_sample(length / norms(v).clamp(min=torch.finfo(x.dtype).tiny), x)
        ahead, behind = (gradient_at(field, x + side * v, labels) for side in (width, -width))
        v = (ahead - behind) / (2 * width)
        growth = norms(v) / length
    return growth


def stability_limit(rule: Rule) -> float | None:
    """The largest stable product of step size and stiffness for a rule, to 0.005.

    2 for gradient descent, 2 / (1 + 2 momentum) for `NesterovLookahead`, 1 for Adams-Bashforth of
    order 2. Found by 400 steps on quadratics of many curvatures; a little too low for a momentum near 1,
    which converges slowly. None for rules without a step size and rules that are not linear in the
    gradient, such as `Adam`.

    >>> from eqm.descent import NesterovLookahead
    >>> round(stability_limit(NesterovLookahead(0.02, 0.3)), 2)
    1.25
    """
    check_descent(rule)
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
    generator = seeded(seed)
    return torch.randn(probes, *x.shape[1:], generator=generator).to(x)
