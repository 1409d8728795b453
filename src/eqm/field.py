"""Fields, the one thing that this package trains, combines and descends.

A **field** is a callable `field(x, labels) -> gradient`. The result has the shape of `x`, and each
row depends on that row alone. An `nn.Module` with this signature is a field.

**The sign.** A field points from data to noise: it is the gradient of an energy that is low at
data. So descent subtracts it. The official implementation and velocities of flow matching have the
opposite sign; their weights and values are negated where they enter (`eqm.models.official`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from eqm.checks import check_gradient

Field = Callable[[Tensor, Tensor | None], Tensor]
"""`field(x, labels) -> gradient`: x (B, ...), labels (B,) integers or None, gradient (B, ...)."""


def at_path(field: Field, path: Tensor) -> Field:
    """The field for samples that have covered `path` (B,), the sum of their step sizes so far.

    Most fields do not depend on the path and are returned as they are. A field that does has a
    method `at(path) -> Field`, which descents call before every step.
    """
    at = getattr(field, "at", None)
    return field if at is None else at(path)


def evaluate(
    field: Callable[..., Tensor], x: Tensor, labels: Tensor | None, *more: Tensor
) -> Tensor:
    """What a field returns at x (B, ...), the gradient. Raises ValueError as `check_gradient` does."""
    gradient = field(x, labels, *more)
    check_gradient(gradient, x)
    return gradient


def gradient_at(
    field: Callable[..., Tensor], x: Tensor, labels: Tensor | None, *more: Tensor
) -> Tensor:
    """The gradient of a field at x (B, ...), in the dtype of x; autocast returns another one.

    The field gets copies of x and labels: one that works in place changes nothing outside.

    Raises ValueError as `check_gradient` does.
    """
    labels = None if labels is None else labels.clone()
    return evaluate(field, x.clone(), labels, *more).to(x.dtype)
