"""Samples from a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from eqm.descent import Descent, in_order, integrate, stream
from eqm.energy import Energy
from eqm.field import guide
from eqm.models import Frozen, Network
from eqm.tasks.sampling import Sampling


def starting_noise(shape: Sequence[int], *, seeds: Sequence[int]) -> Tensor:
    """Normal noise (len(seeds), *shape), each row from its own seed, whatever the others are."""
    rows = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows) if rows else torch.empty(0, *shape)


def generate(
    model: Network | Energy | Frozen,
    labels: Tensor | Sequence[int] | int | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    batch_size: int = 256,
) -> Descent:
    """Samples of a model, `.x` (count, ...) in the range of its data, with how each was found.

    `labels` are the class of each sample, or one class for `count` of them; without, the classes
    take turns. `sampling` defaults to the settings stored with the model. Sample k starts from
    noise of seed `seed + k` and does not depend on `count` or `batch_size` but for rounding; the
    batch is kept full by `eqm.descent.stream`.

    A flow-matching model that is told the noise level follows its flow from gamma 0 to 1 in
    path_length / step_size Euler steps; the rule and the stop do not apply to it.

    Raises ValueError for labels that the model does not have, or a `count` that does not match
    them.
    """
    config = model.config
    sampling = sampling or Sampling.of(model.metadata)
    chosen = _labels(labels, count, config.num_classes)
    count = len(chosen) if chosen is not None else (1 if count is None else count)
    weight = next(model.parameters())

    noise = (starting_noise(config.shape, seeds=[seed + k])[0].to(weight) for k in range(count))
    guidance = 1.0 if chosen is None else sampling.guidance
    if config.noise_conditioning:
        return _flow(model, noise, chosen, sampling.but(guidance=guidance), batch_size)
    return in_order(
        stream(
            guide(model, guidance, config.num_classes),
            noise,
            None if chosen is None else chosen.tolist(),
            rule=sampling.make_rule(),
            stop=sampling.make_stop(),
            batch_size=min(batch_size, count),
            max_steps=sampling.max_steps,
            fixed=getattr(model, "fixed_shapes", False),
        )
    )


def _flow(
    model: Network | Energy | Frozen,
    noise: Iterator[Tensor],
    labels: Tensor | None,
    sampling: Sampling,
    batch_size: int,
) -> Descent:
    parts, done = [], 0
    while batch := list(islice(noise, batch_size)):
        x = torch.stack(batch)
        part = None if labels is None else labels[done : done + len(x)].to(x.device)
        null_label = model.config.num_classes
        steps, guidance = sampling.max_steps, sampling.guidance
        parts.append(
            integrate(model, x, part, steps=steps, guidance=guidance, null_label=null_label)
        )
        done += len(x)
    return Descent(
        x=torch.cat([part.x for part in parts]),
        steps=torch.cat([part.steps for part in parts]),
        evaluations=torch.cat([part.evaluations for part in parts]),
        gradient_norm=torch.cat([part.gradient_norm for part in parts]),
        outcome=tuple(outcome for part in parts for outcome in part.outcome),
    )


def _labels(
    labels: Tensor | Sequence[int] | int | None, count: int | None, num_classes: int
) -> Tensor | None:
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    if num_classes == 0:
        if labels is not None:
            raise ValueError("this model was trained without classes: leave labels out")
        return None
    if labels is None:
        return torch.arange(num_classes if count is None else count) % num_classes
    chosen = torch.as_tensor(labels)
    if chosen.ndim == 0:
        chosen = chosen.expand(1 if count is None else count)
    if (
        chosen.ndim != 1
        or len(chosen) == 0
        or chosen.is_floating_point()
        or (count is not None and len(chosen) != count)
    ):
        raise ValueError(
            f"labels must be whole numbers, one a sample ({count or 'any number'}); got {labels}"
        )
    if chosen.min() < 0 or chosen.max() > num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, or be {num_classes} for none; "
            f"got {int(chosen.min())}..{int(chosen.max())}"
        )
    return chosen.long()
