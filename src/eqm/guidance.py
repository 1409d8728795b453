"""Classifier-free guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eqm.checks import check_count, check_label, check_range, kind_of
from eqm.field import Field, at_path, evaluate
from eqm.shapes import per_sample


def guide(
    field: Field,
    scale: float,
    null_label: int,
    *,
    channels: int | None = None,
    interval: tuple[float, float] | None = None,
    fixed: bool = False,
    norm: float = 0.0,
) -> Field:
    """A guided field, `f(x, null) + scale * (f(x, labels) - f(x, null))`.

    Classifier-free guidance (Ho & Salimans 2022) on gradients. Both terms are computed in one batch
    of twice the size. `scale` 1 is the field itself, at no extra cost.

    `null_label` means "no label"; for the networks here it is the number of classes. `channels`
    guides only the first channels, as the official sampler does with 3 of 4.

    `interval` (low, high) guides a sample only while its path is in [low, high) (Kynkäänniemi et al.
    2024, arXiv 2404.07724, with the path instead of the noise level). Only these samples are evaluated
    twice, so the batch size varies; `fixed` evaluates all samples twice, for compiled networks. A
    direct call, without a path, always guides.

    `norm`, from 0 to 1, keeps the step of guidance from growing: at 1 each sample's guided gradient is
    scaled to the norm of `f(x, labels)`, at 0 it is left, between it is a weighted mean of both (the
    rescaling of Lin et al. 2023, arXiv 2305.08891, on gradients).

    Raises ValueError for an invalid interval or norm, and when called without labels.

    >>> towards_label = lambda x, labels: x - labels[:, None]
    >>> guide(towards_label, 2.0, null_label=0)(torch.zeros(1, 3), torch.tensor([5]))
    tensor([[-10., -10., -10.]])
    """
    check_label(field, null_label=null_label)
    check_range(-math.inf, math.inf, scale=scale)
    check_range(0, 1, norm=norm)
    if channels is not None:
        check_count(channels=channels)
    if interval is not None and not _rises(interval):
        raise ValueError(
            f"interval must be two rising path lengths, such as (0.1, 0.3); got {kind_of(interval)}"
        )
    return (
        field if scale == 1 else Guided(field, scale, null_label, channels, interval, fixed, norm)
    )


def _rises(interval: Any) -> bool:
    try:
        low, high = map(float, interval)
    except (TypeError, ValueError, OverflowError):
        return False
    return 0 <= low < high


def in_interval(path: Tensor, interval: tuple[float | Tensor, float | Tensor]) -> Tensor:
    """True (B,) for the samples whose path (B,) is in the interval [low, high); each bound may be (B,)."""
    # the tolerance of PathLength: rounding may leave a sum of steps a little short
    low, high = (bound * (1 - 1e-4) for bound in interval)
    return (path >= low) & (path < high)


@dataclass(frozen=True)
class Guided:
    """The field that `guide` makes."""

    field: Field
    scale: float
    null_label: int
    channels: int | None
    interval: tuple[float, float] | None
    fixed: bool
    norm: float = 0.0

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self._guide_all(self.field, x, labels)

    def _guide_all(
        self, field: Field, x: Tensor, labels: Tensor | None, inside: Tensor | None = None
    ) -> Tensor:
        labels = self._checked(labels)
        every = torch.cat([labels, torch.full_like(labels, self.null_label)])
        both = torch.cat([x, x])
        labelled, unlabelled = evaluate(field, both, every).chunk(2)
        guided = self._mix(labelled, unlabelled)
        return guided if inside is None else guided.where(per_sample(inside, x), labelled)

    def at(self, path: Tensor) -> Field:
        inside = None if self.interval is None else in_interval(path, self.interval)
        if inside is None or self.fixed:
            field = at_path(self.field, path.repeat(2))
            return lambda x, labels: self._guide_all(field, x, labels, inside)
        rows = inside.nonzero().flatten()
        if len(rows) == 0:
            return at_path(self.field, path)
        field = at_path(self.field, torch.cat([path, path[rows]]))

        def guided(x: Tensor, labels: Tensor | None) -> Tensor:
            labels = self._checked(labels)
            null = torch.full_like(labels[rows], self.null_label)
            both = torch.cat([x, x[rows]])
            gradient = evaluate(field, both, torch.cat([labels, null]))
            labelled, unlabelled = gradient.split([len(x), len(rows)])
            return labelled.index_copy(0, rows, self._mix(labelled[rows], unlabelled))

        return guided

    def _mix(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        guided = torch.lerp(unlabelled, labelled, self.scale)
        if self.channels is not None:
            guided = torch.cat([guided[:, : self.channels], labelled[:, self.channels :]], dim=1)
        if self.norm == 0:
            return guided
        wanted, found = (x.flatten(1).norm(dim=1) for x in (labelled, guided))
        factor = (wanted / found).where(found > 0, 1.0)
        return guided * per_sample(torch.lerp(torch.ones_like(factor), factor, self.norm), guided)

    def _checked(self, labels: Tensor | None) -> Tensor:
        if not isinstance(labels, Tensor):
            raise ValueError(
                f"a guided field needs labels of shape (B,); got {kind_of(labels)}: pass labels, or set "
                "the scale to 1"
            )
        return labels
