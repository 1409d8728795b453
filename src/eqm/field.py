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

import torch
from torch import Tensor

Field = Callable[[Tensor, Tensor | None], Tensor]
"""`field(x, labels) -> gradient`: x (B, ...), labels (B,) integers or None, gradient (B, ...) as
x."""


def guide(field: Field, scale: float, null_label: int, *, channels: int | None = None) -> Field:
    """A field led towards its labels: `f(x, null) + scale * (f(x, labels) - f(x, null))`.

    Classifier-free guidance (Ho & Salimans 2022) on gradients. Both branches share one pass of a
    doubled batch; `scale` 1 is the field itself, at its own cost.

    `null_label` is the label that stands for "none", the number of classes for the networks here.
    `channels` guides only the first channels and leaves the labelled branch in the rest; the
    official sampler does so with 3 of 4 channels.

    Raises ValueError when called without labels.

    >>> towards_label = lambda x, labels: x - labels[:, None]
    >>> guide(towards_label, 2.0, null_label=0)(torch.zeros(1, 3), torch.tensor([5]))
    tensor([[-10., -10., -10.]])
    """
    if scale == 1:
        return field

    def guided(x: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ValueError(
                "a guided field needs labels, one a sample; got None: pass labels, or guide with scale 1"
            )
        null = torch.full_like(labels, null_label)
        labelled, unlabelled = field(torch.cat([x, x]), torch.cat([labels, null])).chunk(2)
        if channels is None:
            return torch.lerp(unlabelled, labelled, scale)
        led = torch.lerp(unlabelled[:, :channels], labelled[:, :channels], scale)
        return torch.cat([led, labelled[:, channels:]], dim=1)

    return guided


def condition(field: Field, label: int) -> Field:
    """The field of one label, whatever labels it is called with: what `compose` adds up.

    >>> towards_label = lambda x, labels: x - labels[:, None]
    >>> condition(towards_label, 5)(torch.zeros(1, 3), None)
    tensor([[-5., -5., -5.]])
    """

    def conditioned(x: Tensor, labels: Tensor | None) -> Tensor:
        return field(x, torch.full((len(x),), label, device=x.device))

    return conditioned


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

    def composed(x: Tensor, labels: Tensor | None) -> Tensor:
        total = weights[0] * fields[0](x, labels)
        for weight, field in zip(weights[1:], fields[1:], strict=True):
            total = total + weight * field(x, labels)
        return total

    return composed
