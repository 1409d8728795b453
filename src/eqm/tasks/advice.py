"""What went wrong in sampling, in sentences."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.descent import Descent, GradientDescent, Outcome, PathLength, descend, stability, stiffness
from eqm.energy import Energy
from eqm.models import Network
from eqm.shapes import norms
from eqm.tasks.generation import starting_noise
from eqm.tasks.sampling import Sampling

LOOK = 8
"""Samples that are looked at."""
CAREFUL = 200
"""Steps of a descent that is careful enough to arrive where the settings do not."""


@torch.no_grad()
def advise(
    model: Network | Energy,
    descent: Descent,
    labels: Tensor | None = None,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[str]:
    """What `generate` came to that its caller should know, a sentence each; none if all is well.

    A network that gives NaN; steps that diverge or grow, with the largest stable step estimated
    from the stiffness of the landscape where careful descents end; and a gradient ratio that no
    sample met. `labels`, `sampling` and `seed` are those of the `generate`. Costs nothing where no
    sample fails and few evaluations of few samples else.
    """
    config, weight = model.config, next(model.parameters())
    sampling = sampling or Sampling.of(model.metadata)
    said: list[str] = []
    count = min(LOOK, len(descent.x))
    if config.noise_conditioning or not count:
        return said
    diverged = descent.outcome.count(Outcome.DIVERGED)
    noise = starting_noise(config.shape, seeds=range(seed, seed + count)).to(weight)
    part = None if labels is None else labels[:count].to(weight.device)
    field = sampling.make_field(model, config.num_classes, labelled=part is not None)
    first = norms(field(noise, part)).float()
    if not first.isfinite().all():
        return [
            "the network returns values that are not finite for plain noise: its weights are damaged, "
            "or its precision is too low"
        ]
    last = descent.gradient_norm[:count].float().to(first)
    if diverged or (last > 2 * first).any():
        limit = stability(sampling.make_rule())
        small = GradientDescent(sampling.path_length / CAREFUL)
        end = descend(field, noise, part, rule=small, stop=PathLength(sampling.path_length))
        stiff = stiffness(field, end.x, part).float().median().item()
        what = (
            f"{diverged} of {len(descent.x)} samples diverged"
            if diverged
            else ("the gradient of samples grew instead of falling")
        )
        advice = ""
        if limit is not None and 0 < stiff < float("inf"):
            advice = (
                f": the largest stable step is about {limit / stiff:.2g} (stiffness {stiff:.3g}); "
                f"step_size is {sampling.step_size:g}"
            )
        said.append(what + advice)
    elif sampling.gradient_ratio and (descent.steps >= sampling.max_steps).all():
        said.append(
            f"no sample met gradient_ratio {sampling.gradient_ratio:g} within path_length "
            f"{sampling.path_length:g}: the smallest of the first {count} came to "
            f"{(last / first).min():.2g}"
        )
    return said
