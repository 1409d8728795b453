"""Fields made of fields: that of one label, and weighted sums, which may differ from pixel to pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqm.field import Field, at_path
from eqm.shapes import norms, per_sample

Weight = float | Tensor
"""How much a field counts: a number, or a tensor that x (B, ...) can be multiplied with."""


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
        return _Conditioned(at_path(self.field, path), self.label)


def compose(
    fields: Sequence[Field],
    weights: Sequence[Weight] | None = None,
    *,
    base: Field | None = None,
    balance: bool = False,
) -> Field:
    """The weighted sum of fields, the gradient of the weighted sum of their energies.

    f = sum_i w_i f_i,   and with `base` g   f = g + sum_i w_i (f_i - g)

    Descending it looks for points low in every energy at once (section 5 of arXiv 2510.02300: two
    labels, weights 1), and high in those of negative weight. Without `weights` each field counts 1.
    A weight may be a mask, (H, W) or (C, H, W): how much the field counts in each pixel.

    The sum is steeper than its parts: with weights that add up to W, a step size divided by W
    covers the path that one field would. Not so with `base`, whose own weight, 1 - W, makes them
    add up to 1. The field without label there gives the conjunction of Liu et al. (2022, arXiv
    2206.01714), for a single label classifier-free guidance.

    `balance` brings the parts, f_i or f_i - g, to their mean norm, sample by sample, before they
    are weighted: none drowns another. All labels of one field are evaluated in one pass.

    Raises ValueError when there are no fields, or not one weight a field; when called, for weights
    that do not fit x.

    >>> compose([lambda x, labels: x, lambda x, labels: 3 * x], [0.5, 1.0])(torch.ones(1, 2), None)
    tensor([[3.5000, 3.5000]])
    """
    weights = [1.0] * len(fields) if weights is None else weights
    if not fields or len(fields) != len(weights):
        raise ValueError(
            "compose needs at least one field and one weight a field; "
            f"got {len(fields)} fields and {len(weights)} weights"
        )
    if base is not None and not balance:
        rest = 1 - sum(weights)
        if torch.as_tensor(rest).abs().max() > 1e-6:
            fields, weights = [*fields, base], [*weights, rest]
        base = None
    return _Sum(tuple(fields), tuple(weights), base, balance)


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
            # what rounding leaves of the difference of two equal fields is none, and must not be
            # brought to the size of the others
            noise = 64 * torch.finfo(sizes.dtype).eps * norms(total)
            scales = (sizes.mean(0) / sizes).where(sizes > noise, 0.0)
            parts = [per_sample(scale, x) * part for scale, part in zip(scales, parts, strict=True)]
        for weight, part in zip(self.weights, parts, strict=True):
            total = total + _fitted(weight, x) * part
        return total

    def _gradients(self, fields: Sequence[Field], x: Tensor, labels: Tensor | None) -> list[Tensor]:
        """The gradient of each of the fields, evaluated once however often it occurs."""
        pairs = [(f.field, f.label) if isinstance(f, _Conditioned) else (f, None) for f in fields]
        found: dict[tuple[int, int | None], Tensor] = {}

        def here(field: Field, copies: int) -> Field:
            return field if self.path is None else at_path(field, self.path.repeat(copies))

        for field in {id(field): field for field, _ in pairs}.values():
            own = dict.fromkeys(label for other, label in pairs if other is field)
            numbers = [label for label in own if label is not None]
            if None in own:
                found[id(field), None] = here(field, 1)(x, labels)
            if numbers:
                copies = len(numbers)
                every = torch.tensor(numbers, device=x.device).repeat_interleave(len(x))
                points = x.repeat(copies, *[1] * (x.ndim - 1))
                gradients = here(field, copies)(points, every).chunk(copies)
                found |= {(id(field), n): g for n, g in zip(numbers, gradients, strict=True)}
        return [found[id(field), label] for field, label in pairs]


def _fitted(weight: Weight, x: Tensor) -> Weight:
    """The weight, of the type and on the device of x, if x can be multiplied with it."""
    if not isinstance(weight, Tensor):
        return weight
    sizes = zip(reversed(weight.shape), reversed(x.shape), strict=False)
    if weight.ndim > x.ndim or any(one not in (1, other) for one, other in sizes):
        raise ValueError(
            f"a weight must be a number or a mask of shape {tuple(x.shape[-2:])} or "
            f"{tuple(x.shape[1:])}; got {tuple(weight.shape)}"
        )
    return weight.to(x)
