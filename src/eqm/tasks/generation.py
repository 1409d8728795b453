"""Samples from a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, distributed

from eqm.corruption import decay_of
from eqm.descent import (
    FinishedSample,
    Solution,
    Trajectory,
    collect,
    integrate,
    record_trajectory,
    stream,
)
from eqm.descent.checks import check_count
from eqm.sampling.labels import Labels, chosen_labels
from eqm.sampling.settings import Sampling
from eqm.sampling.start import Model, starting_noise


def draw(
    model: Model,
    labels: Labels = None,
    *,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    batch_size: int = 256,
) -> Iterator[FinishedSample]:
    """Each sample of `generate` as it ends, numbered as there; what came stays, should a later one
    fail.

    Under torchrun a process draws its share alone: sample k belongs to the process of rank k modulo
    their number.

    Raises ValueError as `generate` does, at once.
    """
    config = model.config
    sampling = sampling or Sampling.of(model.metadata)
    chosen = chosen_labels(model, labels, count)
    count = len(chosen) if chosen is not None else (1 if count is None else count)
    check_count(batch_size=batch_size)
    weight = next(model.parameters())

    rank, ranks = place(model)
    mine = range(rank, count, ranks)
    device, dtype = weight.device, getattr(model, "dtype", weight.dtype)
    noise = (starting_noise(config.shape, seeds=[seed + k])[0].to(device, dtype) for k in mine)
    classes = None if chosen is None else chosen[rank::ranks]
    if config.noise_conditioning:
        ends = _flow(model, noise, classes, sampling, batch_size)
    else:
        ends = stream(
            sampling.make_field(model, config.num_classes, labelled=classes is not None),
            noise,
            None if classes is None else classes.tolist(),
            **sampling.from_noise(),
            batch_size=max(1, min(batch_size, len(mine))),
            fixed=getattr(model, "fixed_shapes", False),
        )
    return (replace(end, index=mine[end.index]) for end in ends)


def generate(
    model: Model,
    labels: Labels = None,
    *,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    batch_size: int = 256,
) -> Solution:
    """Samples of a model, `.x` (count, ...) in the range of its data, with how each was found.

    `labels` are the class of each sample, by number or by name, or one class for `count` of them;
    without, the classes take turns. `sampling` defaults to the settings stored with the model. Sample
    k starts from noise of seed `seed + k` and does not depend on `count`, `batch_size` or the number
    of processes but for rounding; the batch is kept full by `eqm.descent.stream`.

    Where `torch.distributed` runs, as under torchrun, each process draws every world_size-th
    sample, and all of them come together on rank 0, on the CPU; the other processes get the samples
    that they drew.

    A model that is told the noise level follows its flow from gamma 0 to 1 in path_length /
    step_size Euler steps, even in gamma; the rule and the stop do not apply to it.

    Raises ValueError for labels that the model does not have, or a `count` that does not match
    them.
    """
    mine = draw(model, labels, count=count, seed=seed, sampling=sampling, batch_size=batch_size)
    ends = gather(mine) if place(model)[1] > 1 else mine
    return collect(ends, like=next(model.parameters()).new_empty(0, *model.config.shape))


def gather(ends: Iterable[FinishedSample]) -> list[FinishedSample]:
    """The ends of all processes on rank 0, on the CPU, and on every other rank its own; without
    `torch.distributed` just the ends. All processes must call it."""
    mine = list(ends)
    rank, ranks = place()
    if ranks == 1:
        return mine
    shares: list[list[FinishedSample]] | None = [[]] * ranks if rank == 0 else None
    distributed.gather_object([replace(end, x=end.x.cpu()) for end in mine], shares, dst=0)
    return mine if shares is None else [end for share in shares for end in share]


def place(model: Model | None = None) -> tuple[int, int]:
    """The rank of this process and the number of processes, among which samples of `model` are shared.

    Where each process holds but a part of every weight, all must draw the same samples."""
    if model is not None and hasattr(next(model.parameters()), "device_mesh"):
        return 0, 1
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def watch(
    model: Model,
    labels: Labels = None,
    *,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    moments: int = 50,
) -> Trajectory:
    """The samples that `generate` finds, on their way: at the start, at moments evenly spaced along
    the path, no more of them than there are steps, and at the end.

    Raises ValueError as `generate` does, for `moments` below 1 and for a model that is told the
    noise level.
    """
    config, weight = model.config, next(model.parameters())
    sampling = sampling or Sampling.of(model.metadata)
    check_count(moments=moments)
    if config.noise_conditioning:
        raise ValueError("a model that is told the noise level does not descend: watch another")
    chosen = chosen_labels(model, labels, count)
    count = len(chosen) if chosen is not None else (1 if count is None else count)
    noise = starting_noise(config.shape, seeds=range(seed, seed + count))
    noise = noise.to(weight.device, getattr(model, "dtype", weight.dtype))
    descent = sampling.from_noise()
    steps = descent["max_steps"]
    moments = min(moments, steps)
    return record_trajectory(
        sampling.make_field(model, config.num_classes, labelled=chosen is not None),
        noise,
        None if chosen is None else chosen.to(weight.device),
        **descent,
        at=[steps * k // moments for k in range(moments + 1)],
    )


def _flow(
    model: Model,
    noise: Iterator[Tensor],
    labels: Tensor | None,
    sampling: Sampling,
    batch_size: int,
) -> Iterator[FinishedSample]:
    done, null_label, decay = 0, model.config.num_classes, decay_of(model)
    while batch := list(islice(noise, batch_size)):
        x = torch.stack(batch)
        part = None if labels is None else labels[done : done + len(x)].to(x.device)
        end = integrate(
            model,
            x,
            part,
            steps=sampling.max_steps,
            decay=decay,
            guidance=1.0 if part is None else sampling.guidance,
            null_label=null_label,
            guidance_interval=sampling.guidance_interval,
        )
        columns = (end.steps.tolist(), end.nfe.tolist(), end.gradient_norm.tolist())
        for k, row in enumerate(zip(end.x, *columns, end.outcome, strict=True)):
            yield FinishedSample(done + k, *row)
        done += len(x)
