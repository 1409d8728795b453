"""A batch that several descents share, as a server offers it to the functions that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from eqm.descent.rules.rule import Rule
from eqm.descent.stopping import Step, Stop
from eqm.field import Field

if TYPE_CHECKING:
    from eqm.descent.driver import Solution
    from eqm.descent.streaming import FinishedSample


Label = int | tuple[int, ...]
"""The label of one sample: a class, or the tokens of a sentence."""


def numbers_of(label: Label) -> tuple[int, ...]:
    """The numbers of a label."""
    return label if isinstance(label, tuple) else (label,)


class SharedBatch(Protocol):
    """What takes over the descents of a function that runs inside of it."""

    def stream(
        self,
        field: Field,
        starts: Iterator[tuple[int, Tensor, Label | None]],
        count: int | None,
        *,
        rule: Rule,
        stop: Stop | None,
        batch_size: int,
        max_steps: int,
        together: bool,
    ) -> Iterator[FinishedSample] | None:
        """The samples that start at `starts` (index, x, label), each when it ends; None for a field,
        rule or stop that cannot be shared. `count` is their number, if it is known. With `together` all
        start at the same step otherwise."""
        ...

    def report(self, step: Step, before: Tensor) -> None:
        """Takes note of a step, from `before` (A, ...), of a descent that is not shared."""
        ...


SHARED: ContextVar[SharedBatch | None] = ContextVar("shared batch", default=None)
"""The batch that takes over the descents here; by default none."""


def report(step: Step, before: Tensor) -> None:
    """Tells the shared batch, if there is one, of a step from `before` (A, ...) outside of it."""
    if (shared := SHARED.get()) is not None:
        shared.report(step, before)


def shared_solution(
    field: Field, x: Tensor, labels: Tensor | None, rule: Rule, stop: Stop | None, max_steps: int
) -> Solution | None:
    """The result of `descend` in the shared batch; None if there is none, or if it cannot be shared."""
    if (shared := SHARED.get()) is None or not len(x):
        return None
    from eqm.descent.streaming import collect

    classes: Iterable[Any] = repeat(None, len(x)) if labels is None else labels.tolist()
    if labels is not None and labels.ndim == 2:
        classes = map(tuple, classes)
    taken = shared.stream(
        field,
        zip(range(len(x)), x.detach(), classes, strict=True),
        len(x),
        rule=rule,
        stop=stop,
        batch_size=len(x),
        max_steps=max_steps,
        together=True,
    )
    return None if taken is None else collect(taken)
