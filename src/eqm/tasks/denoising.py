"""Noisy images made clean, without knowing how noisy they are."""

from __future__ import annotations

from torch import Tensor

from eqm.descent import Descent, descend
from eqm.field import Field
from eqm.tasks.sampling import Sampling


def denoise(
    field: Field,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    sampling: Sampling | None = None,
) -> Descent:
    """Where partially noised images x (B, ...) settle on the landscape.

    x is gamma * image + (1 - gamma) * noise; gamma need not be known, nor be the same for all: the
    field has no noise level to be told (section 5 of arXiv 2510.02300). Without `labels` a
    class-conditional model uses its null label. `sampling` defaults to the settings stored with the
    model; it stops each image by its gradient where these say so, and else after a path for noise.
    """
    sampling = sampling or Sampling.of(getattr(field, "metadata", {}))
    if labels is not None and sampling.guidance != 1:
        field = sampling.make_field(field, field.config.num_classes)  # type: ignore[attr-defined]
    return descend(
        field,
        x,
        labels,
        rule=sampling.make_rule(),
        stop=sampling.make_stop(),
        max_steps=sampling.max_steps,
    )
