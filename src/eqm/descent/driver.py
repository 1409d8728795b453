"""Descending one batch: `iterate` yields every step, `descend` returns the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from eqm.checks import check_call, check_count, check_descent
from eqm.descent.rules.rule import Rule, State
from eqm.descent.sharing import report, shared_solution
from eqm.descent.stopping import Step, Stop
from eqm.field import Field, at_path, gradient_at
from eqm.shapes import all_finite, norms, per_sample


class Outcome(StrEnum):
    """How the descent of one sample ended; `.sentence` explains it."""

    CONVERGED = "converged"
    MAX_STEPS = "max_steps"
    DIVERGED = "diverged"

    @property
    def sentence(self) -> str:
        return {
            Outcome.CONVERGED: "The sample stopped: it met the stopping rule.",
            Outcome.MAX_STEPS: "The sample reached the maximum number of steps before it met the stopping rule.",
            Outcome.DIVERGED: "The sample became NaN or infinite: use a smaller step size, or check its start.",
        }[self]


@dataclass(frozen=True, repr=False)
class Solution:
    """The result of descending B samples."""

    x: Tensor
    """The final samples, (B, ...); the last finite value of a diverged one."""
    steps: Tensor
    """Steps of each sample, (B,)."""
    nfe: Tensor
    """Function evaluations (of the field) for each sample, (B,)."""
    gradient_norm: Tensor
    """Norm of the last gradient of each sample, (B,)."""
    outcome: tuple[Outcome, ...]
    """How each sample ended, B outcomes."""

    def __repr__(self) -> str:
        if not self.outcome:
            return "Solution of 0"
        counts = ", ".join(f"{self.outcome.count(o)} {o}" for o in Outcome if o in self.outcome)
        if Outcome.MAX_STEPS in self.outcome:
            unmet = [outcome == Outcome.MAX_STEPS for outcome in self.outcome]
            norm = self.gradient_norm[torch.tensor(unmet, device=self.x.device)]
            counts += f" (gradient norm {norm.min():.3g} to {norm.max():.3g})"
        if Outcome.DIVERGED in self.outcome:
            counts += " (use a smaller step size, or check the starts)"
        least, most = int(self.nfe.min()), int(self.nfe.max())
        spent = f"{most}" if least == most else f"{least} to {most}"
        return f"Solution of {len(self.x)}: {counts}; NFE {spent}"


@dataclass(frozen=True)
class ActiveSamples:
    """The A samples that still descend; the first axis of every tensor, also in the states, is A."""

    index: Tensor
    x: Tensor
    labels: Tensor | None
    path: Tensor
    steps: Tensor
    nfe: Tensor
    rule_state: State
    stop_state: State

    @classmethod
    def start(
        cls, x: Tensor, labels: Tensor | None, *, rule: Rule, stop: Stop | None
    ) -> ActiveSamples:
        """Samples x (A, ...) before their first step, with indices from 0.

        Raises ValueError for what is no rule or stop.
        """
        check_descent(rule, stop)
        x = x.detach()
        index = torch.arange(len(x), device=x.device)
        none = torch.zeros_like(index)
        # float64 for the sum of thousands of small steps; Apple's devices have none
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        path = torch.zeros(len(x), dtype=exact, device=x.device)
        with torch.no_grad():
            rule_state = rule.init(x)
            stop_state = () if stop is None else stop.init(x)
        return cls(index, x, labels, path, none, none, rule_state, stop_state)

    def __getitem__(self, rows: Tensor) -> ActiveSamples:
        """The samples at `rows`: indices or a mask."""

        def take(part: Any) -> Any:
            return tuple(map(take, part)) if isinstance(part, tuple) else part[rows]

        parts: dict[str, Any] = {k: v if v is None else take(v) for k, v in vars(self).items()}
        return ActiveSamples(**parts)


@torch.no_grad()
def advance(
    field: Field, batch: ActiveSamples, *, rule: Rule, stop: Stop | None
) -> tuple[Step, ActiveSamples]:
    """One step of every sample, and the samples after it, including those that ended.

    Raises ValueError if the field returns another shape or no floating-point tensor.
    """
    calls = 0

    def gradient_of(point: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return gradient_at(here, point, batch.labels)

    here = at_path(field, batch.path)
    x, gradient, covered, rule_state = rule.step(
        gradient_of, batch.x, batch.rule_state, batch.steps
    )
    gradient_norm = norms(gradient)
    path, steps, nfe = batch.path + covered, batch.steps + 1, batch.nfe + calls
    diverged = ~(all_finite(x) & gradient_norm.isfinite())
    x = batch.x.where(per_sample(diverged, x), x)
    converged, stop_state = torch.zeros_like(diverged), batch.stop_state
    step = Step(batch.index, x, gradient, gradient_norm, path, steps, nfe, converged, diverged)
    if stop is not None:
        arrived, stop_state = stop(step, stop_state)
        step = replace(step, converged=arrived & ~diverged)
    report(step, batch.x)
    return step, ActiveSamples(
        batch.index, x, batch.labels, path, steps, nfe, rule_state, stop_state
    )


def iterate(
    field: Field, x: Tensor, labels: Tensor | None = None, *, rule: Rule, stop: Stop | None = None
) -> Iterator[Step]:
    """Every step of descending `field` from x (B, ...), until all samples have ended.

    A sample ends if it meets `stop` or diverges. Its last step still contains it, later steps do not:
    the batch shrinks. Without a stop there is no end. `labels` (B,) follow their samples. Autograd is
    off during a step.

    Raises ValueError unless x is a floating-point tensor and labels are None or whole numbers (B,), for
    what is no field, rule or stop, and if the field returns another shape.
    """
    check_call(field, x, labels)
    return _steps(field, ActiveSamples.start(x, labels, rule=rule, stop=stop), rule, stop)


def _steps(field: Field, batch: ActiveSamples, rule: Rule, stop: Stop | None) -> Iterator[Step]:
    while len(batch.index):
        step, batch = advance(field, batch, rule=rule, stop=stop)
        yield step
        # the only synchronisation with an accelerator in a step
        going = (~(step.converged | step.diverged)).nonzero().flatten()
        if len(going) < len(batch.index):
            batch = batch[going]


def descend(
    field: Field,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    rule: Rule,
    stop: Stop | None = None,
    max_steps: int = 1000,
) -> Solution:
    """The result of descending `field` from each sample of x (B, ...).

    `rule` says how to step and `stop` when a sample has converged; without a stop every sample makes
    `max_steps` steps. The field gets `labels` (B,). Divergence is an outcome, not an error.

    Raises ValueError as `iterate` does, and for `max_steps` below 1.

    >>> from eqm.descent import GradientDescent, GradientNorm
    >>> bowl = lambda x, labels: x
    >>> print(descend(bowl, torch.ones(2, 3), rule=GradientDescent(0.5), stop=GradientNorm(0.01)))
    Solution of 2: 2 converged; NFE 9
    """
    check_count(max_steps=max_steps)
    every = iterate(field, x, labels, rule=rule, stop=stop)
    if (taken := shared_solution(field, x, labels, rule, stop, max_steps)) is not None:
        return taken
    end = x.detach().clone()
    steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    nfe, outcome = torch.zeros_like(steps), torch.zeros_like(steps)
    gradient_norm = x.new_full((len(x),), torch.nan)
    for step in islice(every, max_steps):
        end[step.index] = step.x
        steps[step.index], nfe[step.index] = step.steps, step.nfe
        gradient_norm[step.index] = step.gradient_norm.to(gradient_norm)
        outcome[step.index] = outcome_of(step)
    return Solution(end, steps, nfe, gradient_norm, tuple(OUTCOMES[k] for k in outcome.tolist()))


OUTCOMES = (Outcome.MAX_STEPS, Outcome.CONVERGED, Outcome.DIVERGED)


def outcome_of(step: Step) -> Tensor:
    """The index in OUTCOMES of each sample, if the step is its last, (A,)."""
    return step.converged + 2 * step.diverged
