"""Passes through the model: the evaluations that several descents wait for, merged into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from eqm.field import evaluate
from eqm.sampling.model import Model, describe


@dataclass(eq=False)
class Ask:
    """Points at which the gradient is wanted."""

    x: Tensor
    """(A, ...)"""
    labels: Tensor | None
    more: tuple[Tensor, ...] = ()
    """Further arguments of the model, (A,) each."""
    parts: list[Tensor] = field(default_factory=list)
    """The gradients so far, of the first rows."""
    error: Exception | None = None

    @property
    def done(self) -> int:
        return sum(map(len, self.parts))

    @property
    def left(self) -> int:
        return 0 if self.error is not None else len(self.x) - self.done

    def gradient(self) -> Tensor:
        """The gradient (A, ...). Raises what the model raised."""
        if self.error is not None:
            raise self.error
        if not self.parts:
            return torch.empty_like(self.x)
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)


class Passes:
    """Evaluates a model for many at a time, at most `rows` samples in a pass."""

    def __init__(self, model: Model, *, rows: int) -> None:
        self.model, self.rows = model, rows
        info = describe(model)
        self._null = info.num_classes or None
        self._tokens = info.sentence
        self._fixed = info.fixed_shapes
        self._turn = 0
        self.evaluations = 0
        """Evaluations of one sample so far."""
        self.passes = 0
        """Passes so far."""

    def run(self, asks: Sequence[Ask]) -> None:
        """One pass for all, in equal shares: what does not fit goes on in the next pass."""
        self._turn += 1
        turn = self._turn % len(asks)
        taken, left = [], self.rows
        # The small ones first, so that what they leave over of their share goes to the large ones.
        for k, ask in enumerate(sorted((*asks[turn:], *asks[:turn]), key=lambda ask: ask.left)):
            count = min(ask.left, left // (len(asks) - k) or 1, left)
            if count:
                taken.append((ask, slice(ask.done, ask.done + count)))
            left -= count
        groups: dict[object, list[tuple[Ask, slice]]] = {}
        for ask, rows in taken:
            labelled = ask.labels is not None or self._null is not None
            shapes = (ask.x.shape[1:], ask.x.dtype, labelled, *(m.dtype for m in ask.more))
            groups.setdefault(shapes, []).append((ask, rows))
        for group in groups.values():
            self._evaluate(group)

    def _evaluate(self, group: Sequence[tuple[Ask, slice]]) -> None:
        try:
            x = _joined([ask.x[rows] for ask, rows in group])
            labels = None
            if group[0][0].labels is not None or self._null is not None:
                labels = _joined([self._labels(ask, rows) for ask, rows in group])
            columns = zip(*([m[rows] for m in ask.more] for ask, rows in group), strict=True)
            gradient = self._call(x, labels, *(_joined(list(parts)) for parts in columns))
        except Exception as error:
            if len(group) == 1:
                group[0][0].error = error
                return
            for one in group:  # only those that are wrong fail
                self._evaluate([one])
            return
        sizes = [rows.stop - rows.start for _, rows in group]
        for (ask, _), part in zip(group, gradient.split(sizes), strict=True):
            ask.parts.append(part)

    def _call(self, x: Tensor, labels: Tensor | None, *more: Tensor) -> Tensor:
        count = len(x)
        if self._fixed:  # few sizes, as each is compiled
            size = 1 << (count - 1).bit_length()
            rows = torch.arange(size, device=x.device).clamp(max=count - 1)
            x, more = x[rows], tuple(part[rows] for part in more)
            labels = None if labels is None else labels[rows]
        gradient = evaluate(self.model, x, labels, *more)
        self.evaluations += count
        self.passes += 1
        return gradient[:count].to(x.dtype)

    def _labels(self, ask: Ask, rows: slice) -> Tensor:
        if ask.labels is not None and (ask.labels.ndim == 2 or not self._tokens):
            return ask.labels[rows]
        if ask.labels is not None:  # one token
            return F.pad(ask.labels[rows, None], (0, self._tokens - 1), value=self._null)
        assert self._null is not None
        shape = (rows.stop - rows.start, *[self._tokens][: self._tokens])
        return torch.full(shape, self._null, device=ask.x.device)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
