"""Fibers: computations in one thread that pause where they need the gradient of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from greenlet import greenlet
from torch import Tensor

from eqm.checks import check_label_range
from eqm.descent import FinishedSample, Rule, Step, Stop
from eqm.descent.sharing import SHARED, Label, numbers_of
from eqm.field import Field
from eqm.sampling.model import Model
from eqm.serving.conditions import Kind, Terms, moved, row_of, shareable
from eqm.serving.passes import Ask
from eqm.serving.request import Progress, Request
from eqm.serving.slots import Group, Sample, Slots, Supply


class Fiber:
    """A function that runs until it needs a gradient, and goes on when the gradient is there."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.ask: Ask | None = None
        """What it waits for."""
        self._greenlet = greenlet(run)

    def go(self) -> None:
        """Runs it until it pauses or ends."""
        self._greenlet.switch()

    def pause(self) -> None:
        """Goes back to who called `go`, until the next `go`."""
        self._greenlet.parent.switch()

    def stop(self) -> None:
        """Ends it where it is."""
        self._greenlet.throw()

    def evaluate(self, x: Tensor, labels: Tensor | None = None, *more: Tensor) -> Tensor:
        """The gradient of the model at x (A, ...). Raises what the model raises."""
        ask = self.ask = Ask(x, labels, more)
        while ask.left:
            self.pause()
        self.ask = None
        return ask.gradient()


class GroupFiber(Fiber):
    """The samples of one kind, step by step; it pauses after each step."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(self._steps)
        self.group = Group(kind, self.evaluate)

    def _steps(self) -> None:
        while True:
            self.group.step()
            self.pause()


class RequestFiber(Fiber):
    """A request that has begun. It takes over the descents of its function that can be shared."""

    def __init__(
        self, request: Request[Any], use: Callable[[Model], Any], model: Model, slots: Slots
    ) -> None:
        super().__init__(self._compute)
        self.request, self._use, self._slots = request, use, slots
        self._model = SharedModel(model, self.evaluate)
        self._supply: Supply | None = None
        self._max_steps = 0
        self._energies: dict[int, float] = {}

    @property
    def waits(self) -> bool:
        """Whether it waits for samples in the batch."""
        supply = self._supply
        return supply is not None and supply.open and not supply.ended and supply.error is None

    def _compute(self) -> None:
        SHARED.set(self)
        try:
            result = self._use(self._model)
        except Exception as error:
            self.request.fail(error)
        else:
            self.request.succeed(result)

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
        """The samples that start at `starts`, as they end in the shared batch; None if they cannot share it."""
        terms = Terms.of(field, self._model)
        if terms is None or not shareable(rule, together):
            self._max_steps = max_steps
            return None

        def samples() -> Iterator[Sample]:
            for index, x, label in starts:
                if label is not None:
                    check_label_range(field, *numbers_of(label))
                kind, row = row_of(rule, stop, terms, index, x, label, max_steps)
                yield Sample(index, x, kind, row, supply)

        work = math.inf if count is None else count * max_steps
        supply = Supply(self.request, samples(), limit=batch_size, work=work, steps=max_steps)
        self._slots.supplies.append(supply)
        return self._ends(supply)

    def _ends(self, supply: Supply) -> Iterator[FinishedSample]:
        while True:
            while supply.ended:
                yield supply.ended.popleft()
            if supply.error is not None:
                raise supply.error
            if not supply.open:
                return
            self._supply = supply
            self.pause()
            self._supply = None

    def report(self, step: Step, before: Tensor) -> None:
        """Reports the progress of samples that descend on their own."""
        if not self.request.preview_every:
            return
        columns = (step.index, step.steps, step.gradient_norm, moved(step, before))
        for x, index, steps, norm, change in zip(
            step.x, *(column.tolist() for column in columns), strict=True
        ):
            energy = self._energies[index] = self._energies.get(index, 0.0) + change
            if steps % self.request.preview_every == 0:
                most = self._max_steps
                self.request.report(Progress(index, x.clone(), steps, most, norm, energy))


class SharedModel:
    """Stands for a model within a request: its calls wait for the next pass."""

    def __init__(self, model: Model, evaluate: Callable[..., Tensor]) -> None:
        self._model, self._evaluate = model, evaluate

    def __call__(self, x: Tensor, labels: Tensor | None = None, *more: Tensor) -> Tensor:
        return self._evaluate(x, labels, *more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
