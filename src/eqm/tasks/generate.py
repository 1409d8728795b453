"""Samples from a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from eqm.descent import Descent, Outcome, descend
from eqm.energy import Energy
from eqm.field import guide
from eqm.models import Network
from eqm.tasks.sampling import Sampling


def starting_noise(shape: Sequence[int], *, seeds: Sequence[int]) -> Tensor:
    """Normal noise (len(seeds), *shape), each row from its own seed, so that no row depends on the
    others."""
    rows = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows) if rows else torch.empty(0, *shape)


def generate(
    model: Network | Energy,
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
    noise of seed `seed + k` and does not depend on `count` or `batch_size` but for rounding.

    Raises ValueError for labels that the model does not have, or a `count` that does not match
    them.
    """
    config = model.config
    sampling = sampling or Sampling.of(model.metadata)
    chosen = _labels(labels, count, config.num_classes)
    count = len(chosen) if chosen is not None else (1 if count is None else count)
    field = guide(model, sampling.guidance, config.num_classes) if chosen is not None else model
    device = next(model.parameters()).device

    parts = []
    for first in range(0, count, batch_size):
        rows = range(first, min(first + batch_size, count))
        noise = starting_noise(config.shape, seeds=[seed + row for row in rows]).to(device)
        part = None if chosen is None else chosen[rows.start : rows.stop].to(device)
        parts.append(
            descend(
                field,
                noise,
                part,
                rule=sampling.make_rule(),
                stop=sampling.make_stop(),
                max_steps=sampling.max_steps,
            )
        )
    return joined(parts)


def joined(parts: Sequence[Descent]) -> Descent:
    """Several descents as one, in order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    outcome: tuple[Outcome, ...] = sum((part.outcome for part in parts), ())
    tensors = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("x", "steps", "evaluations", "gradient_norm")
    }
    return replace(first, outcome=outcome, **tensors)


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
