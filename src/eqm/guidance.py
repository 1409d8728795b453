"""Fields led towards their labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.field import Field, at_path
from eqm.shapes import per_sample


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


def in_interval(path: Tensor, interval: tuple[float, float]) -> Tensor:
    """True (B,) for the samples whose path (B,) is in the interval [low, high)."""
    # as PathLength reads lengths: a sum of steps may end a rounding before it
    low, high = (bound * (1 - 1e-4) for bound in interval)
    return (path >= low) & (path < high)


@dataclass(frozen=True)
class _Guided:
    field: Field
    scale: float
    null_label: int
    channels: int | None
    interval: tuple[float, float] | None
    fixed: bool

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self._both(self.field, x, labels)

    def _both(
        self, field: Field, x: Tensor, labels: Tensor | None, inside: Tensor | None = None
    ) -> Tensor:
        labels = self._known(labels)
        every = torch.cat([labels, torch.full_like(labels, self.null_label)])
        labelled, unlabelled = field(torch.cat([x, x]), every).chunk(2)
        led = self._led(labelled, unlabelled)
        return led if inside is None else led.where(per_sample(inside, x), labelled)

    def at(self, path: Tensor) -> Field:
        inside = None if self.interval is None else in_interval(path, self.interval)
        if inside is None or self.fixed:
            both = at_path(self.field, path.repeat(2))
            return lambda x, labels: self._both(both, x, labels, inside)
        rows = inside.nonzero().flatten()
        if len(rows) == 0:
            return at_path(self.field, path)
        field = at_path(self.field, torch.cat([path, path[rows]]))

        def guided(x: Tensor, labels: Tensor | None) -> Tensor:
            labels = self._known(labels)
            null = torch.full_like(labels[rows], self.null_label)
            every = field(torch.cat([x, x[rows]]), torch.cat([labels, null]))
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
