"""The slots of the shared batch: samples of different requests that descend together."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from eqm.descent import FinishedSample
from eqm.descent.driver import ActiveSamples, advance
from eqm.descent.streaming import finished
from eqm.serving.conditions import (
    Column,
    Evaluate,
    Kind,
    RowField,
    RowStop,
    moved,
    rule_of,
)
from eqm.serving.request import Progress, Request


@dataclass(eq=False)
class Supply:
    """The samples of one `stream` of a request, on their way into the batch and out of it."""

    request: Request[Any]
    samples: Iterator[Sample]
    """Those that have not begun."""
    limit: int
    """It may have so many samples in the batch."""
    steps: int
    """The most steps of a sample."""
    work: float
    """The most steps of all its samples that have not ended."""
    running: int = 0
    exhausted: bool = False
    ended: deque[FinishedSample] = field(default_factory=deque)
    """Finished samples that the request has not taken yet."""
    error: Exception | None = None

    @property
    def open(self) -> bool:
        """Whether more samples will end."""
        return self.running > 0 or not self.exhausted

    def take(self) -> Sample | None:
        """The next sample; None if there is none left. An error ends the supply."""
        try:
            sample = next(self.samples, None)
        except Exception as error:
            self.error, sample = error, None
        self.exhausted = sample is None
        self.running += sample is not None
        return sample


@dataclass(eq=False)
class Sample:
    """A sample that begins."""

    index: int
    """Its index in its stream."""
    x: Tensor
    kind: Kind
    row: list[float]
    supply: Supply


class Group:
    """The samples of one kind; each has its own row of numbers."""

    def __init__(self, kind: Kind, evaluate: Evaluate) -> None:
        self.kind = kind
        self.entering: list[Sample] = []
        """Samples that begin with the next step."""
        self._field = RowField(evaluate, kind.terms, kind.tokens)
        self._samples: dict[int, Sample] = {}
        self._batch: ActiveSamples | None = None

    def __len__(self) -> int:
        return len(self._samples) + len(self.entering)

    def step(self) -> None:
        """One step of all."""
        self._enter()
        self._drop_ended()
        batch = self._batch
        if batch is None or not len(batch.index):
            return
        rows, before = batch.labels, batch.x
        assert rows is not None
        rule, stop = rule_of(self.kind, rows), RowStop(self.kind, rows)
        step, batch = advance(self._field, batch, rule=rule, stop=stop)
        watched = any(sample.supply.request.preview_every for sample in self._samples.values())
        if watched:
            rows[:, Column.ENERGY] += moved(step, before)
        ended = step.converged | step.diverged | (step.steps >= rows[:, Column.MAX_STEPS])
        # the only synchronisation with an accelerator in a step
        gone = ended.nonzero().flatten()
        if watched:
            self._report(step.index, step.x, step.steps, step.gradient_norm, rows, ended)
        for end, energy in zip(
            finished(step, gone), rows[gone, Column.ENERGY].tolist(), strict=True
        ):
            sample = self._samples.pop(end.index)
            supply, end = sample.supply, replace(end, index=sample.index)
            supply.running -= 1
            supply.work -= supply.steps
            supply.ended.append(end)
            most = int(sample.row[Column.MAX_STEPS])
            supply.request.report(
                Progress(end.index, end.x, end.steps, most, end.gradient_norm, energy, end)
            )
        self._batch = batch[(~ended).nonzero().flatten()] if len(gone) else batch

    def fail(self, error: Exception) -> None:
        """Ends the requests of all samples with an error."""
        for sample in (*self._samples.values(), *self.entering):
            sample.supply.request.fail(error)
        self._samples, self.entering, self._batch = {}, [], None

    def _enter(self) -> None:
        if not self.entering:
            return
        x = torch.stack([sample.x for sample in self.entering])
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        rows = torch.tensor([sample.row for sample in self.entering], dtype=exact, device=x.device)
        stop = RowStop(self.kind, rows)
        fresh = ActiveSamples.start(x, rows, rule=rule_of(self.kind, rows), stop=stop)
        numbers = [next(_NUMBERS) for _ in self.entering]
        fresh = replace(fresh, index=torch.tensor(numbers, device=x.device))
        self._samples.update(zip(numbers, self.entering, strict=True))
        self.entering = []
        old = self._batch
        self._batch = fresh if old is None or not len(old.index) else _together(old, fresh)

    def _drop_ended(self) -> None:
        gone = [n for n, sample in self._samples.items() if sample.supply.request.done()]
        if not gone or self._batch is None:
            return
        for number in gone:
            self._samples.pop(number).supply.running -= 1
        index = self._batch.index
        going = ~torch.isin(index, torch.tensor(gone, device=index.device))
        self._batch = self._batch[going.nonzero().flatten()]

    def _report(
        self, index: Tensor, x: Tensor, steps: Tensor, norms: Tensor, rows: Tensor, ended: Tensor
    ) -> None:
        numbers = zip(
            index.tolist(),
            steps.tolist(),
            norms.tolist(),
            rows[:, Column.ENERGY].tolist(),
            ended.tolist(),
            strict=True,
        )
        for k, (number, count, norm, energy, over) in enumerate(numbers):
            sample = self._samples[number]
            request = sample.supply.request
            if not over and request.preview_every and count % request.preview_every == 0:
                most = int(sample.row[Column.MAX_STEPS])
                request.report(Progress(sample.index, x[k].clone(), count, most, norm, energy))


def _together(first: ActiveSamples, second: ActiveSamples) -> ActiveSamples:
    """The samples of both."""

    def join(old: Any, new: Any) -> Any:
        if isinstance(old, tuple):
            return tuple(map(join, old, new))
        return None if old is None else torch.cat([old, new.to(old.dtype)])

    return ActiveSamples(
        **{name: join(old, getattr(second, name)) for name, old in vars(first).items()}
    )


_NUMBERS = itertools.count()


class Slots:
    """Whose sample gets the next free slot."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.supplies: list[Supply] = []
        """Those that may have samples left, in the order in which they came."""

    def fill(self, filled: int, enter: Callable[[Sample], None]) -> None:
        """Gives the free slots, where `filled` are taken, to the requests with the least work left, so that
        small ones end early. A request with no sample in the batch comes before all others, and gets its
        first one also when the batch is full, up to a quarter more: nobody has to wait for a large request,
        and no large request has to wait for ever."""
        self.supplies = [supply for supply in self.supplies if not supply.request.done()]
        while ready := [s for s in self.supplies if s.running < s.limit and not s.exhausted]:
            supply = min(ready, key=lambda s: (s.running > 0, s.work))
            if filled >= self.count + (0 if supply.running else self.count // 4):
                break
            if (sample := supply.take()) is not None:
                enter(sample)
                filled += 1
        self.supplies = [supply for supply in self.supplies if not supply.exhausted]
