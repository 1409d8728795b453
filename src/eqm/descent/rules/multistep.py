"""Multistep rules with given weights, as `eqm.descent.fit_multistep` finds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from eqm.checks import kind_of
from eqm.descent.rules.rule import GradientOf, State, StepResult, per_sample


@dataclass(frozen=True)
class LinearMultistep:
    """A linear multistep method with its own weights for each step; one evaluation a step.

    x_{k+1} = keep_k * x_k - sum_j weights_kj * field(x_{k-j})    row k: keep_k, weights_k0, weights_k1, ...

    After the last row samples stay where they are. `eqm.descent.fit_multistep` fits the rows to a field.
    The path counts the sum of the weights of a step. Gradients before the first step are zero.

    Raises ValueError unless there are rows, all of the same length and finite.

    >>> from eqm.descent import descend
    >>> halve = LinearMultistep(((1.0, 0.5), (1.0, 0.5)))
    >>> descend(lambda x, labels: x, torch.ones(1, 2), rule=halve, max_steps=2).x
    tensor([[0.2500, 0.2500]])
    """

    rows: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        try:
            rows = tuple(tuple(map(float, row)) for row in self.rows)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"rows must be rows of numbers, one row a step; got {kind_of(self.rows)}"
            ) from None
        if len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
            raise ValueError(
                "rows must be one or more of the same length, at least 2 numbers each; "
                f"got rows of {[len(row) for row in rows]} numbers"
            )
        if not all(math.isfinite(number) for row in rows for number in row):
            raise ValueError(f"rows must hold finite numbers; got {rows}")
        object.__setattr__(self, "rows", rows)

    def init(self, x: Tensor) -> State:
        return tuple(torch.zeros_like(x) for _ in self.rows[0][2:])

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        gradient = gradient_of(x)
        table = _table(self.rows, torch.promote_types(x.dtype, torch.float32), x.device)
        keep, *weights = table[steps.clamp(max=len(self.rows))].unbind(1)  # (A,) each
        gradients = (gradient, *state)
        moved = per_sample(keep, x) * x
        for weight, earlier in zip(weights, gradients, strict=True):
            moved = moved - per_sample(weight, x) * earlier
        return StepResult(moved, gradient, torch.stack(weights).sum(0), gradients[: len(state)])


@lru_cache(maxsize=16)  # avoids a copy to the accelerator at every step
def _table(rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The rows as a tensor, and a last row that does not move."""
    return torch.tensor([*rows, (1.0, *[0.0] * (len(rows[0]) - 1))], dtype=dtype, device=device)
