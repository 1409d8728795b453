"""Fitting a multistep rule of few steps to recorded descents, by least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.checks import check_call, check_count, check_positive
from eqm.descent.rules.multistep import LinearMultistep
from eqm.descent.trajectory import Trajectory, check_trajectory
from eqm.field import Field, at_path, gradient_at


@torch.no_grad()
def fit_multistep(
    field: Field,
    trajectory: Trajectory,
    labels: Tensor | None = None,
    *,
    steps: int,
    order: int = 3,
    exponent: float = 1.5,
) -> LinearMultistep:
    """The `LinearMultistep` rule that follows a trajectory in `steps` evaluations.

    `trajectory` comes from `record_trajectory`: descents of `field` from noise to the end, in many small
    steps; `labels` (B,) are theirs. Step k ends at the moment when the mean distance to the end has
    fallen to a fraction (1 - k / steps)^exponent. On the ideal path this fraction is 1 - gamma. With
    `exponent` 1 steps are even in gamma; larger values make steps shorter near the data.

    The 1 + `order` weights of a step are fitted by least squares over all samples, starting from where
    the fitted steps before really end, so errors are corrected. About 100 samples are enough. The rule
    is for descents from noise of the same field with the same guidance. In the spirit of Shaul et al.
    2024 (arXiv 2403.01329), in closed form.

    Raises ValueError if the trajectory has too few moments, does not move, or is not finite.

    >>> from eqm.descent import AdamsBashforth, record_trajectory
    >>> bowl = lambda x, labels: 3 * x
    >>> way = record_trajectory(bowl, torch.ones(1, 2), rule=AdamsBashforth(0.01), at=range(41))
    >>> len(fit_multistep(bowl, way, steps=2).rows)
    2
    """
    check_count(steps=steps, order=order)
    check_positive(exponent=exponent)
    check_trajectory(trajectory)
    check_call(field, trajectory.x[0], labels)
    way = trajectory.x
    if len(way) <= steps or not way.numel():
        raise ValueError(
            f"trajectory must have samples and more moments than steps ({steps}), better ten times as "
            f"many; got {way.shape[1]} samples at {len(way)} moments"
        )
    left = torch.stack([(x - way[-1]).float().square().mean().sqrt() for x in way])
    if not (left[0] > 0 and left.isfinite().all()):
        raise ValueError(
            "trajectory must move and be finite: record descents from noise to their end"
        )
    x, path, rows = way[0], trajectory.path[0], []
    gradients: list[Tensor] = []
    for moment in _moments(left / left[0], steps, exponent):
        gradient = gradient_at(at_path(field, path), x, labels)
        gradients = [gradient, *gradients][:order]
        terms = torch.stack([x, *(-earlier for earlier in gradients)])  # (1 + K, B, ...)
        weights = _least_squares(terms.flatten(1), way[moment].flatten())
        x = torch.tensordot(weights.to(x), terms, 1)
        row = weights.tolist()
        rows.append((*row, *[0.0] * (1 + order - len(row))))
        path = path + weights[1:].sum().to(path)
    return LinearMultistep(tuple(rows))


def _moments(left: Tensor, steps: int, exponent: float) -> list[int]:
    """The moment at which each step ends; `left` (T,) is the remaining distance as a fraction."""
    found = [0]
    for k in range(1, steps):
        fraction = (1 - k / steps) ** exponent
        nearest = int((left - fraction).abs().argmin())
        found.append(min(max(nearest, found[-1] + 1), len(left) - 1 - (steps - k)))
    return [*found[1:], len(left) - 1]


def _least_squares(terms: Tensor, target: Tensor) -> Tensor:
    """The weights (K,) that combine terms (K, N) to the target (N,) by least squares, on the CPU."""
    exact = torch.float32 if terms.device.type == "mps" else torch.float64
    terms, target = terms.to(exact), target.to(exact)
    # a pseudo-inverse, because terms may be multiples of each other
    if not terms.isfinite().all():
        raise ValueError("field must be finite along the trajectory: it returned NaN or infinity")
    gram, right = (terms @ terms.T).cpu().double(), (terms @ target).cpu().double()
    return torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ right
