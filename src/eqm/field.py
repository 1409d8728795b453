"""What everything here is made of: a field, and the ways to make one field from others.

A **field** is any callable `field(x, labels) -> gradient` whose result has the shape of `x`, each
row on its own. An `nn.Module` with that signature is a field as it is.

**The sign.** A field points from data to noise: it is the gradient of an energy that is low at
data. Whatever descends a field subtracts it. The official implementation and velocity-based flow
matching use the opposite sign; their weights and values are negated where they enter
(`eqm.models.official`), and nowhere else is there a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.shapes import spread

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


def guide(
    field: Field,
    scale: float,
    null_label: int,
    *,
    channels: int | None = None,
    interval: tuple[float, float] | None = None,
    fixed: bool = False,
) -> Field:
    """A field led towards its labels: `f(x, null) + scale * (f(x, labels) - f(x, null))`.

    Classifier-free guidance (Ho & Salimans 2022) on gradients. Both branches share one pass of a
    doubled batch; `scale` 1 is the field itself, at its own cost.

    `null_label` is the label that stands for "none", the number of classes for the networks here.
    `channels` guides only the first channels and leaves the labelled branch in the rest; the
    official sampler does so with 3 of 4 channels.

    `interval` (low, high) guides a sample while the path it has covered is in [low, high), and is
    the field itself before and after (Kynkäänniemi et al. 2024, arXiv 2404.07724, on the path
    instead of the noise level). Only the samples inside are evaluated twice, so the pass has a
    size that changes; with `fixed` all are, for compiled networks that want one shape. Called
    without a path, it guides everywhere.

    Raises ValueError when called without labels, and for an interval that is none.

    >>> towards_label = lambda x, labels: x - labels[:, None]
    >>> guide(towards_label, 2.0, null_label=0)(torch.zeros(1, 3), torch.tensor([5]))
    tensor([[-10., -10., -10.]])
    """
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise ValueError(
            f"interval must be two path lengths in order, such as (0.1, 0.3); got {interval}"
        )
    return field if scale == 1 else _Guided(field, scale, null_label, channels, interval, fixed)


@dataclass(frozen=True)
class _Guided:
    field: Field
    scale: float
    null_label: int
    channels: int | None
    interval: tuple[float, float] | None
    fixed: bool

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self._both(x, labels)

    def _both(self, x: Tensor, labels: Tensor | None, inside: Tensor | None = None) -> Tensor:
        labels = self._known(labels)
        every = torch.cat([labels, torch.full_like(labels, self.null_label)])
        labelled, unlabelled = self.field(torch.cat([x, x]), every).chunk(2)
        led = self._led(labelled, unlabelled)
        return led if inside is None else led.where(spread(inside, x), labelled)

    def at(self, path: Tensor) -> Field:
        if self.interval is None:
            return self
        low, high = self.interval
        inside = (path >= low) & (path < high)
        if self.fixed:
            return lambda x, labels: self._both(x, labels, inside)
        rows = inside.nonzero().flatten()
        if len(rows) == 0:
            return self.field

        def guided(x: Tensor, labels: Tensor | None) -> Tensor:
            labels = self._known(labels)
            null = torch.full_like(labels[rows], self.null_label)
            every = self.field(torch.cat([x, x[rows]]), torch.cat([labels, null]))
            labelled, unlabelled = every.split([len(x), len(rows)])
            return labelled.index_copy(0, rows, self._led(labelled[rows], unlabelled))

        return guided

    def _led(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        led = torch.lerp(unlabelled, labelled, self.scale)
        if self.channels is None:
            return led
        return torch.cat([led[:, : self.channels], labelled[:, self.channels :]], dim=1)

    def _known(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ValueError(
                "a guided field needs labels, one a sample; got None: pass labels, or guide with scale 1"
            )
        return labels


def condition(field: Field, label: int) -> Field:
    """The field of one label, whatever labels it is called with: what `compose` adds up.

    >>> towards_label = lambda x, labels: x - labels[:, None]
    >>> condition(towards_label, 5)(torch.zeros(1, 3), None)
    tensor([[-5., -5., -5.]])
    """

    return _Conditioned(field, label)


@dataclass(frozen=True)
class _Conditioned:
    field: Field
    label: int

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self.field(x, torch.full((len(x),), self.label, device=x.device))

    def at(self, path: Tensor) -> Field:
        return _Conditioned(along(self.field, path), self.label)


def compose(fields: Sequence[Field], weights: Sequence[float] | None = None) -> Field:
    """The weighted sum of fields, the gradient of the weighted sum of their energies.

    Descending it looks for points low in every energy at once (section 5 of arXiv 2510.02300: two
    labels, weights 1). Without `weights` each field counts 1. The sum is steeper than its parts:
    with weights that add up to W, a step size divided by W covers the path that one field would.

    Raises ValueError when there are no fields, or not one weight a field.

    >>> compose([lambda x, labels: x, lambda x, labels: 3 * x], [0.5, 1.0])(torch.ones(1, 2), None)
    tensor([[3.5000, 3.5000]])
    """
    weights = [1.0] * len(fields) if weights is None else weights
    if not fields or len(fields) != len(weights):
        raise ValueError(
            "compose needs at least one field and one weight a field; "
            f"got {len(fields)} fields and {len(weights)} weights"
        )

    return _Sum(tuple(fields), tuple(weights))


@dataclass(frozen=True)
class _Sum:
    fields: tuple[Field, ...]
    weights: tuple[float, ...]

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        total = self.weights[0] * self.fields[0](x, labels)
        for weight, field in zip(self.weights[1:], self.fields[1:], strict=True):
            total = total + weight * field(x, labels)
        return total

    def at(self, path: Tensor) -> Field:
        return _Sum(tuple(along(field, path) for field in self.fields), self.weights)
