"""Few steps that follow a flow: weights found by least squares on samples of it."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.descent.checks import check_count, check_positive
from eqm.descent.rules import LinearMultistep
from eqm.descent.trajectory import Trajectory
from eqm.field import Field, at_path


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
    """The rule that goes a trajectory's way in `steps` evaluations, as nearly as its weights allow.

    `trajectory` is what `record_trajectory` keeps of careful descents of `field` from noise, all the way and in
    many moments, and `labels` (B,) are theirs. Step k ends where the distance to the end of the way
    has fallen to (1 - k / steps)^exponent of that of the start, in the mean over the samples; on the
    ideal path that share is 1 - gamma, whatever the decay. `exponent` 1 has even steps, more has
    shorter ones towards the data.

    The weights of a step are the least squares of all numbers of all samples, from where the steps
    before have really led: what they missed is made good as far as can be. Some 100 samples do, as
    there are but 1 + `order` weights a step. They hold for descents of the same field, guidance
    included, from noise. A method in the manner of the non-stationary solvers of Shaul et al. 2024
    (arXiv 2403.01329), in closed form.

    Raises ValueError for a trajectory with fewer moments than steps, that does not move, or is not
    finite.

    >>> from eqm.descent import AdamsBashforth, record_trajectory
    >>> bowl = lambda x, labels: 3 * x
    >>> way = record_trajectory(bowl, torch.ones(1, 2), rule=AdamsBashforth(0.01), at=range(41))
    >>> len(fit_multistep(bowl, way, steps=2).rows)
    2
    """
    check_count(steps=steps, order=order)
    check_positive(exponent=exponent)
    way = trajectory.x
    if len(way) <= steps or not way.numel():
        raise ValueError(
            f"trajectory must hold samples at more moments than there are steps, {steps}, better ten "
            f"times as many; got {way.shape[1]} samples at {len(way)} moments"
        )
    left = torch.stack([(x - way[-1]).float().square().mean().sqrt() for x in way])
    if not (left[0] > 0 and left.isfinite().all()):
        raise ValueError("trajectory must lead from noise to somewhere, and hold finite numbers")
    x, path, rows = way[0], trajectory.path[0], []
    gradients: list[Tensor] = []
    for moment in _moments(left / left[0], steps, exponent):
        gradient = at_path(field, path)(x, labels).to(x)
        gradients = [gradient, *gradients][:order]
        terms = torch.stack([x, *(-earlier for earlier in gradients)])  # (1 + K, B, ...)
        weights = _least_squares(terms.flatten(1), way[moment].flatten())
        x = torch.tensordot(weights.to(x), terms, 1)
        row = weights.tolist()
        rows.append((*row, *[0.0] * (1 + order - len(row))))
        path = path + weights[1:].sum().to(path)
    return LinearMultistep(tuple(rows))


def _moments(left: Tensor, steps: int, exponent: float) -> list[int]:
    """For each step the moment that it ends at: as little of the way left as asked for, and
    always a later one."""
    found = [0]
    for k in range(1, steps):
        share = (1 - k / steps) ** exponent
        nearest = int((left - share).abs().argmin())
        found.append(min(max(nearest, found[-1] + 1), len(left) - 1 - (steps - k)))
    return [*found[1:], len(left) - 1]


def _least_squares(terms: Tensor, target: Tensor) -> Tensor:
    """The weights (K,) for which terms (K, N) add up to the target (N,) most nearly, on the CPU."""
    exact = torch.float32 if terms.device.type == "mps" else torch.float64
    terms, target = terms.to(exact), target.to(exact)
    # Over the singular values of the K x K products: terms may be multiples of each other.
    gram, right = (terms @ terms.T).cpu().double(), (terms @ target).cpu().double()
    return torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ right
