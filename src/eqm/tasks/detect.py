"""How far an image is from what the landscape was made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eqm.field import Field
from eqm.objective import EquilibriumMatching


def matching_error(
    field: Field,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    objective: EquilibriumMatching | None = None,
    gammas: Sequence[float] = (0.5, 0.7),
    draws: int = 8,
    seed: int = 0,
) -> Tensor:
    """The training loss of each image of x (B, ...), (B,): higher = more anomalous.

    The mean of `|| field(x_gamma) - (noise - x) c(gamma) ||^2` per element (Eq. 3 of arXiv
    2510.02300) over the fixed `gammas` and `draws` of noise, which are the same for every image:
    the score of an image depends on nothing but it. A field knows how to lead noisy data back to
    where it came from, and not so for what it was not trained on. The cost is one evaluation a
    gamma and draw. `objective` is the one the field was trained with.
    """
    objective = objective or EquilibriumMatching()
    generator = torch.Generator().manual_seed(seed)
    errors = []
    with torch.no_grad():
        for gamma in gammas:
            for _ in range(draws):
                noise = torch.randn(x.shape[1:], generator=generator, dtype=x.dtype)
                error = objective.at(
                    field,
                    x,
                    labels,
                    noise=noise.to(x.device).expand_as(x),
                    gamma=torch.full((len(x),), gamma, device=x.device, dtype=x.dtype),
                )
                errors.append(error)
    return torch.stack(errors).mean(0)
