"""A batch that several descents share, as a server offers it to the functions that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from eqm.descent.rules.rule import Rule
from eqm.descent.stopping import Step, Stop
from eqm.field import Field

if TYPE_CHECKING:
    from eqm.descent.streaming import FinishedSample


class SharedBatch(Protocol):
    """What takes over the descents of a function that runs inside of it."""

    def stream(
        self,
        field: Field,
        starts: Iterator[tuple[int, Tensor, int | None]],
        *,
        rule: Rule,
        stop: Stop | None,
        batch_size: int,
        max_steps: int,
        together: bool,
    ) -> Iterator[FinishedSample] | None:
        """The samples that start at `starts` (index, x, label), each when it ends; None for a field,
        rule or stop that cannot be shared. With `together` all start at the same step otherwise."""
        ...

    def report(self, step: Step, before: Tensor) -> None:
        """Takes note of a step, from `before` (A, ...), of a descent that is not shared."""
        ...


SHARED: ContextVar[SharedBatch | None] = ContextVar("shared batch", default=None)
"""The batch that takes over the descents here; by default none."""
