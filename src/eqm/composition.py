"""Composition: weighted sums of fields, with a weight for each field or for each pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqm.checks import check_field, check_label, check_range, check_row, check_takes_sentences
from eqm.field import Field, at_path, gradient_at
from eqm.shapes import norms, per_sample

Weight = float | Tensor
"""The weight of a field: a number, or a tensor that broadcasts with x (B, ...)."""


def condition(field: Field, label: int | Sequence[int]) -> Field:
    """The field with its label fixed; the labels of a call are ignored. Use it with `compose`.

    A label is a class, or the tokens of a sentence, as many for all labels of a field.

    >>> towards_label = lambda x, labels: x - labels[:, None]
    >>> condition(towards_label, 5)(torch.zeros(1, 3), None)
    tensor([[-5., -5., -5.]])
    """
    if isinstance(label, list | tuple) and label:
        check_takes_sentences(field, label)
        for token in label:
            check_label(field, label=token)
        return Conditioned(field, tuple(map(int, label)))
    check_label(field, label=label)  # type: ignore[arg-type]  # it refuses what is no number
    return Conditioned(field, int(label))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Conditioned:
    """The field that `condition` makes."""

    field: Field
    label: int | tuple[int, ...]

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if isinstance(self.label, int):
            return self.field(x, torch.full((len(x),), self.label, device=x.device))
        return self.field(x, torch.tensor(self.label, device=x.device).repeat(len(x), 1))

    def at(self, path: Tensor) -> Field:
        return Conditioned(at_path(self.field, path), self.label)


def compose(
    fields: Sequence[Field],
    weights: Sequence[Weight] | None = None,
    *,
    base: Field | None = None,
    balance: bool = False,
) -> Field:
    """The weighted sum of fields, the gradient of the weighted sum of their energies.

    f = sum_i w_i f_i;  with a `base` field g:  f = g + sum_i w_i (f_i - g)

    A descent of the sum finds points that are low in all energies (section 5 of arXiv 2510.02300: two
    labels, weights 1), and high in energies of negative weight. The default weights are 1. A weight
    may be a mask of shape (H, W) or (C, H, W).

    The sum is steeper than one field: if the weights add up to W, divide the step size by W. With
    `base` this is not needed. With the unconditional field as `base`, the result is the conjunction of
    Liu et al. (2022, arXiv 2206.01714); for a single label it is classifier-free guidance.

    `balance` scales the parts, f_i or f_i - g, to their mean norm in each sample before weighting, so
    that no part dominates. All labels of one field are evaluated in one batch.

    Raises ValueError without fields, for another number of weights than fields, and, when called, for
    weights that do not broadcast with x.

    >>> compose([lambda x, labels: x, lambda x, labels: 3 * x], [0.5, 1.0])(torch.ones(1, 2), None)
    tensor([[3.5000, 3.5000]])
    """
    check_row(fields=fields)
    fields = tuple(fields)
    weights = [1.0] * len(fields) if weights is None else weights
    check_row(weights=weights)
    weights = tuple(weights)
    if not fields or len(fields) != len(weights):
        raise ValueError(
            "compose needs at least one field and one weight a field; "
            f"got {len(fields)} fields and {len(weights)} weights"
        )
    for each in fields if base is None else (*fields, base):
        check_field(each)
    for weight in weights:
        if not isinstance(weight, Tensor):
            check_range(-math.inf, math.inf, weight=weight)
    if base is not None and not balance:
        rest = 1 - sum(weights)
        if torch.as_tensor(rest).abs().max() > 1e-6:
            fields, weights = (*fields, base), (*weights, rest)
        base = None
    return _Sum(fields, weights, base, balance)


@dataclass(frozen=True, eq=False)
class _Sum:
    fields: tuple[Field, ...]
    weights: tuple[Weight, ...]
    base: Field | None
    balance: bool
    path: Tensor | None = None

    def at(self, path: Tensor) -> Field:
        return replace(self, path=path)

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if self.base is None:
            total, parts = torch.zeros_like(x), self._gradients(self.fields, x, labels)
        else:
            *parts, total = self._gradients((*self.fields, self.base), x, labels)
            parts = [part - total for part in parts]
        if self.balance:
            sizes = torch.stack([norms(part) for part in parts])
            # the difference of two equal fields is rounding noise, which must not be scaled up
            noise = 64 * torch.finfo(sizes.dtype).eps * norms(total)
            scales = (sizes.mean(0) / sizes).where(sizes > noise, 0.0)
            parts = [per_sample(scale, x) * part for scale, part in zip(scales, parts, strict=True)]
        for weight, part in zip(self.weights, parts, strict=True):
            total = total + _fitted(weight, x) * part
        return total

    def _gradients(self, fields: Sequence[Field], x: Tensor, labels: Tensor | None) -> list[Tensor]:
        """The gradient of each field; equal fields are evaluated once."""
        pairs = [(f.field, f.label) if isinstance(f, Conditioned) else (f, None) for f in fields]
        found: dict[tuple[int, int | tuple[int, ...] | None], Tensor] = {}

        def here(field: Field, copies: int) -> Field:
            return field if self.path is None else at_path(field, self.path.repeat(copies))

        for field in {id(field): field for field, _ in pairs}.values():
            own = dict.fromkeys(label for other, label in pairs if other is field)
            numbers = [label for label in own if label is not None]
            if None in own:
                found[id(field), None] = gradient_at(here(field, 1), x, labels)
            if numbers:
                copies = len(numbers)
                every = torch.tensor(numbers, device=x.device).repeat_interleave(len(x), 0)
                points = x.repeat(copies, *[1] * (x.ndim - 1))
                gradients = gradient_at(here(field, copies), points, every).chunk(copies)
                found |= {(id(field), n): g for n, g in zip(numbers, gradients, strict=True)}
        return [found[id(field), label] for field, label in pairs]


def _fitted(weight: Weight, x: Tensor) -> Weight:
    """The weight, with the dtype and device of x, if it broadcasts with x."""
    if not isinstance(weight, Tensor):
        return weight
    try:
        return weight.to(x).expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"a weight must be a number or a mask of shape {tuple(x.shape[-2:])} or "
            f"{tuple(x.shape[1:])}; got {tuple(weight.shape)}"
        ) from None
