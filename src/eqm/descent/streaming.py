"""Continuous batching: samples at different steps of their descent share one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import islice
from operator import index as index_of
from typing import Any

import torch
from torch import Tensor

from eqm.checks import (
    check_count,
    check_descent,
    check_field,
    check_kind,
    check_label_range,
    check_row,
    check_samples,
    kind_of,
)
from eqm.descent.driver import OUTCOMES, ActiveSamples, Outcome, Solution, advance, outcome_of
from eqm.descent.rules.rule import Rule
from eqm.descent.sharing import SHARED, Label, numbers_of
from eqm.descent.stopping import Step, Stop
from eqm.field import Field

IDLE = -1
"""The index of an empty slot of the batch."""


@dataclass(frozen=True)
class FinishedSample:
    """A sample whose descent has ended."""

    index: int
    """Its index among the starts."""
    x: Tensor
    """The final sample, with the shape of one start; the last finite value if it diverged."""
    steps: int
    """Its number of steps."""
    nfe: int
    """Its number of function evaluations."""
    gradient_norm: float
    """The norm of its last gradient."""
    outcome: Outcome
    """How it ended."""


def stream(
    field: Field,
    starts: Iterable[Tensor],
    labels: Iterable[int | Sequence[int]] | None = None,
    *,
    rule: Rule,
    stop: Stop | None = None,
    batch_size: int,
    max_steps: int = 1000,
    fixed: bool = False,
) -> Iterator[FinishedSample]:
    """Each sample when it ends, from a batch that stays full while there are starts.

    A field does not depend on time, so the samples of a batch may be at different steps: when one ends,
    the next start takes its slot. No sample waits for the slowest one of its batch. `starts` is a tensor
    (N, ...) or any iterable of samples, read when a slot is free; `labels` has one label for each, or a row of
    tokens. The
    result of a sample depends on its start and label alone, up to rounding. Samples come in the order
    in which they end.

    After the last start the batch shrinks. With `fixed` it keeps its size, for compiled networks and
    CUDA graphs: finished samples stay in the empty slots.

    Raises ValueError as `descend` does, for fewer labels than starts, and for starts of different
    shapes. If the field, the starts or the labels fail later, finished samples have been yielded.

    >>> from eqm.descent import GradientDescent, GradientNorm
    >>> bowl = lambda x, labels: x
    >>> starts = torch.tensor([[8.0], [1.0], [2.0]])
    >>> half = GradientDescent(0.5)
    >>> ends = stream(bowl, starts, rule=half, stop=GradientNorm(0.6), batch_size=2)
    >>> [(end.index, end.steps) for end in ends]
    [(1, 2), (0, 5), (2, 3)]
    """
    check_count(batch_size=batch_size, max_steps=max_steps)
    check_field(field)
    check_descent(rule, stop)
    check_row(starts=starts, labels=() if labels is None else labels)
    if isinstance(starts, Sized) and isinstance(labels, Sized) and len(labels) != len(starts):
        raise ValueError(
            f"labels must be one for each start; got {len(labels)} for {len(starts)} starts"
        )
    waiting = _numbered(starts, labels)
    if (shared := SHARED.get()) is not None:
        taken = shared.stream(
            field,
            waiting,
            len(starts) if isinstance(starts, Sized) else None,
            rule=rule,
            stop=stop,
            batch_size=batch_size,
            max_steps=max_steps,
            together=False,
        )
        if taken is not None:
            return taken

    def enter(count: int) -> ActiveSamples | None:
        drawn = list(islice(waiting, count))
        if not drawn:
            return None
        indices, samples, classes = zip(*drawn, strict=True)
        x = torch.stack(samples)
        if None not in classes:
            check_label_range(field, *(n for label in classes for n in numbers_of(label)))
        chosen = None if None in classes else torch.tensor(classes, device=x.device)
        batch = ActiveSamples.start(x, chosen, rule=rule, stop=stop)
        return replace(batch, index=torch.tensor(indices, device=x.device))

    def ends() -> Iterator[FinishedSample]:
        batch = enter(batch_size)
        going = 0 if batch is None else len(batch.index)
        if batch is not None and fixed and going < batch_size:
            batch = _padded(batch, batch_size)
        while batch is not None and going:
            step, batch = advance(field, batch, rule=rule, stop=stop)
            ended = step.converged | step.diverged | (step.steps >= max_steps)
            # the only synchronisation with an accelerator in a step
            slots = (ended & (step.index != IDLE)).nonzero().flatten()
            if len(slots) == 0:
                continue
            yield from finished(step, slots)
            fresh = enter(len(slots))
            filled = 0 if fresh is None else len(fresh.index)
            if fresh is not None:
                batch = _fill(batch, slots[:filled], fresh)
            if filled < len(slots):
                going -= len(slots) - filled
                index = batch.index.index_fill(0, slots[filled:], IDLE)
                batch = replace(batch, index=index)
                if not fixed:
                    batch = batch[(index != IDLE).nonzero().flatten()]

    return ends()


def collect(ends: Iterable[FinishedSample], *, like: Tensor | None = None) -> Solution:
    """All samples of a stream as one `Solution`, in the order of the starts.

    `like` (0, ...) gives shape and dtype if there are no samples. Raises ValueError without both.
    """
    check_row(ends=ends)
    rows = list(ends)
    for row in rows:
        check_kind(FinishedSample, **{"each end": row})
    rows.sort(key=lambda end: end.index)
    if not rows and like is None:
        raise ValueError(
            "collect needs at least one sample; got none: pass `like` for an empty result"
        )
    x = torch.stack([row.x for row in rows]) if rows else like
    assert x is not None
    check_kind(Tensor, like=x)
    return Solution(
        x,
        torch.tensor([row.steps for row in rows], dtype=torch.int64, device=x.device),
        torch.tensor([row.nfe for row in rows], dtype=torch.int64, device=x.device),
        torch.tensor([row.gradient_norm for row in rows], dtype=x.dtype, device=x.device),
        tuple(row.outcome for row in rows),
    )


def _numbered(
    starts: Iterable[Tensor], labels: Iterable[int | Sequence[int]] | None
) -> Iterator[tuple[int, Tensor, Label | None]]:
    classes, shape = None if labels is None else iter(labels), None
    for index, start in enumerate(starts):
        check_samples("(...) each", least=1, starts=start)
        shape = start.shape if shape is None else shape
        if start.shape != shape:
            raise ValueError(
                f"starts must have one shape; got {tuple(shape)} and {tuple(start.shape)} at index {index}"
            )
        label: Label | None = None
        if classes is not None:
            try:
                given: Any = next(classes)
            except StopIteration:
                raise ValueError(
                    f"labels must be one for each start; got {index}: pass more labels"
                ) from None
            try:  # refuses fractions
                if isinstance(given, list | tuple) or getattr(given, "ndim", 0) == 1:
                    label = tuple(map(index_of, given))
                else:
                    label = index_of(given)
            except TypeError:
                raise ValueError(
                    f"labels must be whole numbers; got {kind_of(given)} at index {index}"
                ) from None
        yield index, start, label


def finished(step: Step, slots: Tensor) -> Iterator[FinishedSample]:
    """The samples of a step in the given slots (K,)."""
    columns = (step.index, step.steps, step.nfe, outcome_of(step))
    rows = torch.stack(columns, dim=1)[slots].tolist()
    norms = step.gradient_norm[slots].tolist()
    for x, norm, row in zip(step.x[slots], norms, rows, strict=True):
        index, steps, nfe, outcome = row
        yield FinishedSample(index, x, steps, nfe, norm, OUTCOMES[outcome])


def _fill(batch: ActiveSamples, slots: Tensor, fresh: ActiveSamples) -> ActiveSamples:
    """The batch with fresh samples in some of its slots."""

    def put(old: Any, new: Any) -> Any:
        if isinstance(old, tuple):
            return tuple(map(put, old, new))
        return None if old is None else old.index_copy(0, slots, new.to(old.dtype))

    return ActiveSamples(
        **{name: put(old, getattr(fresh, name)) for name, old in vars(batch).items()}
    )


def _padded(batch: ActiveSamples, size: int) -> ActiveSamples:
    """The batch with copies of its first sample in idle slots up to `size`."""
    rows = torch.arange(size, device=batch.index.device)
    real = rows < len(batch.index)
    batch = batch[rows.where(real, 0)]
    return replace(batch, index=batch.index.where(real, IDLE))
