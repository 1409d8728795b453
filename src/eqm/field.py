"""What everything here is made of: a field, and the ways to make one field from others.

A **field** is any callable `field(x, labels) -> gradient` whose result has the shape of `x`, each
row on its own. An `nn.Module` with that signature is a field as it is.

**The sign.** A field points from data to noise: it is the gradient of an energy that is low at
data. Whatever descends a field subtracts it. The official implementation and velocity-based flow
matching use the opposite sign; their weights and values are negated where they enter
(`eqm.models.official`), and nowhere else is there a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Field = Callable[[Tensor, Tensor | None], Tensor]
"""`field(x, labels) -> gradient`: x (B, ...), labels (B,) integers or None, gradient (B, ...) as
x."""


def along(field: Field, path: Tensor) -> Field:
    """The field for samples that have covered `path` (B,), the sum of their step sizes so far.

    A field has no clock, and nearly every one is returned as it is. One that shall act on a part of
    the way alone says so by a method `at(path) -> Field`; what descends asks for it before every
    step, so that samples of one batch may be differently far.
    """
    at = getattr(field, "at", None)
    return field if at is None else at(path)


def condition(field: Field, label: int) -> Field:
    """The field of one label, whatever labels it is called with: what `compose` adds up.

    >>> towards_label = lambda x, labels: x - labels[:, None]
    >>> condition(towards_label, 5)(torch.zeros(1, 3), None)
    tensor([[-5., -5., -5.]])
    """

    return _Conditioned(field, label)


@dataclass(frozen=True)
class _Conditioned:
    field: Field
    label: int

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self.field(x, torch.full((len(x),), self.label, device=x.device))

    def at(self, path: Tensor) -> Field:
        return _Conditioned(along(self.field, path), self.label)


def compose(fields: Sequence[Field], weights: Sequence[float] | None = None) -> Field:
    """The weighted sum of fields, the gradient of the weighted sum of their energies.

    Descending it looks for points low in every energy at once (section 5 of arXiv 2510.02300: two
    labels, weights 1). Without `weights` each field counts 1. The sum is steeper than its parts:
    with weights that add up to W, a step size divided by W covers the path that one field would.

    Raises ValueError when there are no fields, or not one weight a field.

    >>> compose([lambda x, labels: x, lambda x, labels: 3 * x], [0.5, 1.0])(torch.ones(1, 2), None)
    tensor([[3.5000, 3.5000]])
    """
    weights = [1.0] * len(fields) if weights is None else weights
    if not fields or len(fields) != len(weights):
        raise ValueError(
            "compose needs at least one field and one weight a field; "
            f"got {len(fields)} fields and {len(weights)} weights"
        )

    return _Sum(tuple(fields), tuple(weights))


@dataclass(frozen=True)
class _Sum:
    fields: tuple[Field, ...]
    weights: tuple[float, ...]

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        total = self.weights[0] * self.fields[0](x, labels)
        for weight, field in zip(self.weights[1:], self.fields[1:], strict=True):
            total = total + weight * field(x, labels)
        return total

    def at(self, path: Tensor) -> Field:
        return _Sum(tuple(along(field, path) for field in self.fields), self.weights)
