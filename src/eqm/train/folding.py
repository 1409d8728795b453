"""Guidance folded into the field while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.field import Field, evaluate
from eqm.train.config import TrainConfig


@dataclass(frozen=True)
class Unfolded:
    """The field whose loss teaches `field` its own guided gradient at `scale`.

    unfolded(x, labels) = field(x, labels) - (1 - 1 / scale) * (slow(x, labels) - slow(x, null))

    `slow` is a slow copy of the field, its moving average. If the loss of the unfolded field is least and
    both copies agree, then field(x, labels) = f(x, null) + scale * (f(x, labels) - f(x, null)), where f is
    what the loss teaches without guidance. So classifier-free guidance takes one pass (Tang et al. 2025,
    arXiv 2502.12154, with the factor that gives the scale of Ho & Salimans 2022). Nothing changes where
    the label is the null label. No gradient flows through `slow`.
    """

    field: Field
    slow: Field
    scale: float
    null_label: int

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        gradient = evaluate(self.field, x, labels)
        if labels is None:
            return gradient
        with torch.no_grad():
            every = torch.cat([labels, torch.full_like(labels, self.null_label)])
            labelled, unlabelled = evaluate(self.slow, torch.cat([x, x]), every).chunk(2)
        return gradient - (1 - 1 / self.scale) * (labelled - unlabelled)


def unfolded(field: Field, slow: Field, config: TrainConfig) -> Field:
    """The field whose loss teaches `field`: itself, unless `config.objective.guidance` is folded in."""
    scale = config.objective.guidance
    return field if scale == 1 else Unfolded(field, slow, scale, config.model.num_classes)
