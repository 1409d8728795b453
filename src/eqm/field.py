"""What everything here is made of: a field.

A **field** is any callable `field(x, labels) -> gradient` whose result has the shape of `x`, each
row on its own. An `nn.Module` with that signature is a field as it is.

**The sign.** A field points from data to noise: it is the gradient of an energy that is low at
data. Whatever descends a field subtracts it. The official implementation and velocity-based flow
matching use the opposite sign; their weights and values are negated where they enter
(`eqm.models.official`), and nowhere else is there a choice.
"""

from __future__ import annotations

from collections.abc import Callable

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
