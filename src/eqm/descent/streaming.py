"""Continuous batching: samples at different places of their descent share one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from eqm.descent.checks import check_count
from eqm.descent.driver import OUTCOMES, ActiveSamples, Outcome, Solution, advance, outcome_of
from eqm.descent.rules import Rule
from eqm.descent.stopping import Step, Stop
from eqm.field import Field

IDLE = -1
"""The index of a slot of the batch that no sample is in."""


@dataclass(frozen=True)
class FinishedSample:
    """A sample at its end."""

    index: int
    """Its place among the starts."""
    x: Tensor
    """Where it ended, of the shape of one start; a diverged one at its last finite place."""
    steps: int
    """Updates it made."""
    nfe: int
    """Evaluations of the field spent on it."""
    gradient_norm: float
    """Norm of the last gradient it moved along."""
    outcome: Outcome
    """How it ended."""


def stream(
    field: Field,
    starts: Iterable[Tensor],
    labels: Iterable[int] | None = None,
    *,
    rule: Rule,
    stop: Stop | None = None,
    batch_size: int,
    max_steps: int = 1000,
    fixed: bool = False,
) -> Iterator[FinishedSample]:
    """Each sample as it ends its descent, through a batch that stays full while there are starts.

    A field has no clock, so a batch may hold samples that have come differently far: when one ends,
    the next start takes its slot. No evaluation waits for the slowest of a batch, and the number of
    samples need not be known: `starts` is a tensor (N, ...) or any iterable of samples, drawn as
    slots fall free. `labels` gives one label a start. What a sample comes to depends on its start
    and label alone, but for rounding; samples come in the order in which they finish.

    When the starts run out the batch shrinks. `fixed` keeps its size instead, with the last samples
    carried on unseen in the empty slots: compiled networks and CUDA graphs want one shape.

    Raises ValueError as `descend` does, and when there are fewer labels than starts, or starts of
    different shapes: at once for what can be known at once. Whatever fails on the way, the field,
    the starts or the labels, the samples that had finished have been handed out before.

    >>> from eqm.descent import GradientDescent, GradientNorm
    >>> bowl = lambda x, labels: x
    >>> starts = torch.tensor([[8.0], [1.0], [2.0]])
    >>> half = GradientDescent(0.5)
    >>> ends = stream(bowl, starts, rule=half, stop=GradientNorm(0.6), batch_size=2)
    >>> [(end.index, end.steps) for end in ends]
    [(1, 2), (0, 5), (2, 3)]
    """
    check_count(batch_size=batch_size, max_steps=max_steps)
    _check_sizes(starts, labels)
    waiting = _numbered(starts, labels)

    def enter(count: int) -> ActiveSamples | None:
        drawn = list(islice(waiting, count))
        if not drawn:
            return None
        indices, samples, classes = zip(*drawn, strict=True)
        x = torch.stack(samples)
        chosen = None if labels is None else torch.tensor(classes, device=x.device)
        batch = ActiveSamples.start(x, chosen, rule=rule, stop=stop)
        return replace(batch, index=torch.tensor(indices, device=x.device))

    return _ends(field, enter, rule, stop, batch_size, max_steps, fixed)


def _ends(
    field: Field,
    enter: Callable[[int], ActiveSamples | None],
    rule: Rule,
    stop: Stop | None,
    batch_size: int,
    max_steps: int,
    fixed: bool,
) -> Iterator[FinishedSample]:
    batch = enter(batch_size)
    going = 0 if batch is None else len(batch.index)
    if batch is not None and fixed and going < batch_size:
        batch = _padded(batch, batch_size)
    while batch is not None and going:
        step, batch = advance(field, batch, rule=rule, stop=stop)
        ended = step.converged | step.diverged | (step.steps >= max_steps)
        # all that a step waits for of an accelerator: how many have ended
        slots = (ended & (step.index != IDLE)).nonzero().flatten()
        if len(slots) == 0:
            continue
        yield from _finished(step, slots)
        fresh = enter(len(slots))
        filled = 0 if fresh is None else len(fresh.index)
        if fresh is not None:
            batch = _put(batch, slots[:filled], fresh)
        if filled < len(slots):
            going -= len(slots) - filled
            index = batch.index.index_fill(0, slots[filled:], IDLE)
            batch = replace(batch, index=index)
            if not fixed:
                batch = batch[(index != IDLE).nonzero().flatten()]


def collect(ends: Iterable[FinishedSample], *, like: Tensor | None = None) -> Solution:
    """All the ends of a stream, as one descent in the order of the starts.

    Where there are none, `like` (0, ...) says of what shape and type they would have been.

    Raises ValueError when there are none and nothing says what they are like.
    """
    rows = sorted(ends, key=lambda end: end.index)
    if not rows and like is None:
        raise ValueError("a stream without samples has no order: pass at least one start")
    x = torch.stack([row.x for row in rows]) if rows else like
    assert x is not None
    return Solution(
        x,
        torch.tensor([row.steps for row in rows], dtype=torch.int64, device=x.device),
        torch.tensor([row.nfe for row in rows], dtype=torch.int64, device=x.device),
        torch.tensor([row.gradient_norm for row in rows], dtype=x.dtype, device=x.device),
        tuple(row.outcome for row in rows),
    )


def _check_sizes(starts: Iterable[Tensor], labels: Iterable[int] | None) -> None:
    if isinstance(starts, Sized) and isinstance(labels, Sized) and len(labels) != len(starts):
        raise ValueError(f"labels must be one a start; got {len(labels)} for {len(starts)} starts")


def _numbered(
    starts: Iterable[Tensor], labels: Iterable[int] | None
) -> Iterator[tuple[int, Tensor, int]]:
    classes, shape = None if labels is None else iter(labels), None
    for index, start in enumerate(starts):
        shape = start.shape if shape is None else shape
        if start.shape != shape:
            raise ValueError(
                f"starts must be of one shape; got {tuple(shape)} and, at {index}, "
                f"{tuple(start.shape)}"
            )
        label = IDLE
        if classes is not None:
            try:
                label = int(next(classes))
            except StopIteration:
                raise ValueError(
                    f"labels must be one a start; they ended after {index}: pass more labels"
                ) from None
        yield index, start, label


def _finished(step: Step, slots: Tensor) -> Iterator[FinishedSample]:
    columns = (step.index, step.steps, step.nfe, outcome_of(step))
    rows = torch.stack(columns, dim=1)[slots].tolist()
    norms = step.gradient_norm[slots].tolist()
    for x, norm, row in zip(step.x[slots], norms, rows, strict=True):
        index, steps, nfe, outcome = row
        yield FinishedSample(index, x, steps, nfe, norm, OUTCOMES[outcome])


def _put(batch: ActiveSamples, slots: Tensor, fresh: ActiveSamples) -> ActiveSamples:
    """The batch with other samples in some of its slots."""

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
