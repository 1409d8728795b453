"""What each sample of a shared batch has of its own: labels, guidance, step size, momentum and stop.

They are a row of numbers, which travels with its sample. So samples of different requests share one
descent, where single numbers would tie them to one request.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from eqm.composition import Conditioned
from eqm.descent import (
    HeavyBall,
    LinearMultistep,
    Nesterov,
    NesterovLookahead,
    PathLength,
    RelativeGradientNorm,
    Rule,
    State,
    Step,
    Stop,
)
from eqm.descent.rules.rule import StepSizeRule
from eqm.descent.sharing import Label, numbers_of
from eqm.descent.stopping import Either
from eqm.field import Field
from eqm.guidance import Guided, in_interval
from eqm.shapes import per_sample
from eqm.tasks import Composition
from eqm.tasks.interpolation import PathLengths

Evaluate = Callable[[Tensor, Tensor | None], Tensor]
MOMENTUM_RULES = (HeavyBall, Nesterov, NesterovLookahead)
SMALLEST_WEIGHT = 1e-6
"""A label with a smaller weight is not evaluated."""


class Column(IntEnum):
    """The columns of a row; the labels of its terms follow, then their weights."""

    STEP_SIZE = 0
    MOMENTUM = 1
    LENGTH = 2
    RATIO = 3
    MAX_STEPS = 4
    GUIDANCE = 5
    LOW = 6
    HIGH = 7
    NULL = 8
    ENERGY = 9


FIRST_LABEL = len(Column)


@dataclass(frozen=True)
class Terms:
    """The labels and weights of a guided field: null + guidance * sum_i w_i (f_i - null), guided while the
    path is in the interval [low, high)."""

    labels: tuple[Label, ...] | None
    """None for the label that each sample brings."""
    weights: tuple[float, ...]
    guidance: float = 1.0
    interval: tuple[float, float] = (-math.inf, math.inf)
    null: Label = -1

    @classmethod
    def of(cls, field: Field, model: object) -> Terms | None:
        """Those of a field that is made of `model`; None for a field that cannot be written so."""
        if field is model:
            return cls(None, (1.0,))
        if isinstance(field, Guided) and field.field is model and field.channels is None:
            if field.norm:  # its samples do not share a batch with others
                return None
            interval = field.interval or (-math.inf, math.inf)
            return cls(None, (1.0,), field.scale, interval, field.null_label)
        if not isinstance(field, Composition) or field.balance:
            return None
        parts = (*field.fields, field.base)
        if not all(isinstance(part, Conditioned) and part.field is model for part in parts):
            return None
        if any(isinstance(weight, Tensor) for weight in field.weights):
            return None  # masks
        *labels, null = (part.label for part in parts if isinstance(part, Conditioned))
        sampling = field.sampling
        interval = sampling.guidance_interval or (-math.inf, math.inf)
        weights = tuple(map(float, field.weights))
        return cls(tuple(labels), weights, sampling.guidance, interval, null)


@dataclass(frozen=True)
class Kind:
    """What the samples of one descent have in common."""

    rule: Rule
    """The rule; the numbers that differ between samples are blank."""
    stop: Stop | None
    """What is not a number of the row: neither a path length nor a ratio of gradient norms."""
    terms: int
    """The number of labels of a sample; 0 to call the model without labels."""
    tokens: int
    """The numbers of a label: 0 for a class, otherwise those of a sentence."""
    shape: tuple[int, ...]
    """Of one sample."""
    dtype: torch.dtype
    device: torch.device


def shareable(rule: Rule, together: bool) -> bool:
    """Whether samples that have made different numbers of steps may share the rule. Rules of `stream`
    always may; `descend` also takes rules that need all samples at the same step."""
    known = isinstance(rule, StepSizeRule | LinearMultistep)
    return (known or not together) and type(rule).__hash__ is not None


def row_of(
    rule: Rule,
    stop: Stop | None,
    terms: Terms,
    index: int,
    x: Tensor,
    label: Label | None,
    steps: int,
) -> tuple[Kind, list[float]]:
    """The kind of the sample x (...) with this index, and its row."""
    numbers = [0.0] * FIRST_LABEL
    if isinstance(rule, StepSizeRule) and not callable(rule.step_size):
        numbers[Column.STEP_SIZE] = rule.step_size
        rule = replace(rule, step_size=1.0)
        if isinstance(rule, MOMENTUM_RULES):
            numbers[Column.MOMENTUM] = rule.momentum
            rule = replace(rule, momentum=0.0)
    length, ratio, rest = _parted(stop, index)
    numbers[Column.LENGTH], numbers[Column.RATIO] = length, ratio
    numbers[Column.MAX_STEPS] = steps
    numbers[Column.GUIDANCE] = terms.guidance
    numbers[Column.NULL] = numbers_of(terms.null)[0]  # a sentence without words repeats it
    numbers[Column.LOW], numbers[Column.HIGH] = terms.interval
    labels: tuple[Label | None, ...] = (label,) if terms.labels is None else terms.labels
    known = [each for each in labels if each is not None]
    count = len(known) if len(known) == len(labels) else 0
    if count:
        numbers += [float(n) for each in known for n in numbers_of(each)]
        numbers += terms.weights
    tokens = len(known[0]) if count and isinstance(known[0], tuple) else 0
    return Kind(rule, rest, count, tokens, tuple(x.shape), x.dtype, x.device), numbers


def _parted(stop: Stop | None, index: int) -> tuple[float, float, Stop | None]:
    """The path length and the ratio of gradient norms at which a sample ends, and what else ends it."""
    if isinstance(stop, PathLength):
        return stop.length, 0.0, None
    if isinstance(stop, PathLengths):
        return float(stop.lengths[index]), 0.0, None
    if isinstance(stop, RelativeGradientNorm):
        return math.inf, stop.ratio, None
    if isinstance(stop, Either):
        first, second = _parted(stop.first, index), _parted(stop.second, index)
        rests = [rest for rest in (first[2], second[2]) if rest is not None]
        rest = Either(*rests) if len(rests) == 2 else next(iter(rests), None)
        return min(first[0], second[0]), max(first[1], second[1]), rest
    return math.inf, 0.0, stop


def rule_of(kind: Kind, rows: Tensor) -> Rule:
    """The rule with the step size and the momentum of each sample; rows (A, ...)."""
    if not isinstance(kind.rule, StepSizeRule) or callable(kind.rule.step_size):
        return kind.rule
    sizes = rows[:, Column.STEP_SIZE]
    changes: dict[str, Any] = {"step_size": lambda steps: sizes}
    if isinstance(kind.rule, MOMENTUM_RULES):
        momentum = rows[:, Column.MOMENTUM].to(kind.dtype)
        changes["momentum"] = momentum.view(-1, *[1] * len(kind.shape))
    rule = copy.copy(kind.rule)
    for name, value in changes.items():
        object.__setattr__(rule, name, value)  # past the checks of single numbers
    return rule


@dataclass(frozen=True, eq=False)
class RowStop(Stop):
    """Ends each sample by its own path length and ratio of gradient norms, or by the stop of its kind."""

    kind: Kind
    rows: Tensor
    """(A, ...)"""

    def init(self, x: Tensor) -> State:
        rest = self.kind.stop
        return (x.new_zeros(len(x)), () if rest is None else rest.init(x))

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        first = state[0].where(step.steps > 1, step.gradient_norm)
        ended = step.path >= self.rows[:, Column.LENGTH] * (1 - 1e-4)
        ended = ended | (step.gradient_norm < self.rows[:, Column.RATIO] * first)
        if (rest := self.kind.stop) is None:
            return ended, (first, ())
        more, other = rest(step, state[1])
        return ended | more, (first, other)


@dataclass(frozen=True, eq=False)
class RowField:
    """The guided field of each sample by its row, which it takes as its label (A, ...)."""

    evaluate: Evaluate
    terms: int
    tokens: int = 0
    path: Tensor | None = None

    def at(self, path: Tensor) -> Field:
        return replace(self, path=path)

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None or not self.terms:
            return self.evaluate(x, None)
        length = max(self.tokens, 1)
        numbers, weights = labels[:, FIRST_LABEL:].split([self.terms * length, self.terms], dim=1)
        numbers = numbers.unflatten(1, (self.terms, length))
        guidance = labels[:, Column.GUIDANCE]
        if self.path is not None:
            interval = (labels[:, Column.LOW], labels[:, Column.HIGH])
            guidance = guidance.where(in_interval(self.path, interval), 1.0)
        weights = weights * guidance[:, None]
        weights = torch.cat([weights, 1 - weights.sum(1, keepdim=True)], dim=1)
        null = labels[:, Column.NULL, None, None].expand(-1, 1, length)
        numbers = torch.cat([numbers, null], dim=1)  # (A, terms + 1, length)
        needed = weights.abs() > SMALLEST_WEIGHT
        needed[:, 0] |= ~needed.any(1)  # the norm of the gradient may be asked of it
        row, column = needed.nonzero().unbind(1)
        chosen = numbers[row, column].long()
        gradient = self.evaluate(x[row], chosen if self.tokens else chosen[:, 0])
        parts = per_sample(weights[row, column].to(gradient), gradient) * gradient
        return torch.zeros_like(x).index_add(0, row, parts)


def moved(step: Step, before: Tensor) -> Tensor:
    """The change of the energy in one step from `before` (A, ...), (A,): <gradient, move>."""
    return (step.gradient * (step.x - before)).flatten(1).sum(1)
