"""Noisy images made clean, without knowing how noisy they are."""

from __future__ import annotations

from torch import Tensor

from eqm.descent import Descent, descend
from eqm.energy import Energy
from eqm.models import Network
from eqm.tasks.sampling import Sampling


def denoise(
    model: Network | Energy,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    sampling: Sampling | None = None,
) -> Descent:
    """Where partially noised images x (B, ...), gamma * image + (1 - gamma) * noise, settle on the
    landscape.

    gamma need not be known, nor be the same for all: the field has no noise level to be told
    (section 5 of arXiv 2510.02300). Without `labels` a class-conditional model uses its null label.
    """
    sampling = sampling or Sampling.of(model.metadata)
    return descend(
        model,
        x,
        labels,
        rule=sampling.make_rule(),
        stop=sampling.make_stop(),
        max_steps=sampling.max_steps,
    )
