"""Samples from a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import distributed

from eqm.checks import check_count, kind_of
from eqm.corruption import decay_of
from eqm.descent import FinishedSample, Solution, Trajectory, collect, integrate, record_trajectory
from eqm.devices import rank, world_size
from eqm.sampling.labels import Labels, labels_or_prompts
from eqm.sampling.model import Model, describe
from eqm.sampling.settings import Sampling
from eqm.sampling.start import Start, prepare


def draw(
    model: Model,
    labels: Labels = None,
    *,
    prompts: str | Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    shape: Sequence[int] | None = None,
    batch_size: int = 256,
) -> Iterator[FinishedSample]:
    """Each sample of `generate` as soon as it ends, with its number `index`.

    Under torchrun each process draws only its share: sample k belongs to the process with rank
    k modulo the number of processes.

    Raises ValueError as `generate` does, at once.
    """
    check_count(batch_size=batch_size)
    start = prepare(
        model,
        labels_or_prompts(model, labels, prompts),
        count=count,
        seed=seed,
        sampling=sampling,
        shape=shape,
        allow_noise_conditioned=True,
    )
    every = range(len(start))
    if not start.info.sharded:  # with sharded weights all processes draw the same samples
        every, start = every[rank() :: world_size()], start[rank() :: world_size()]
    flow = start.info.noise_conditioning
    ends = _flow(model, start, batch_size) if flow else start.stream(batch_size=batch_size)
    return (replace(end, index=every[end.index]) for end in ends)


def generate(
    model: Model,
    labels: Labels = None,
    *,
    prompts: str | Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    shape: Sequence[int] | None = None,
    batch_size: int = 256,
) -> Solution:
    """Samples of a model, `.x` (count, ...) in the range of its data, and how each was found.

    `model` is a network, an energy, or any `field(x, labels)`; a field that does not say the shape
    of its samples needs `shape`. `labels` are the class of each sample, by number or by name, or one
    class for all; without labels the classes take turns. `prompts` are sentences, one a sample or one for
    all, for a model that was trained with captions; the empty sentence leaves the choice to the model,
    as no prompt does. `sampling` defaults to the settings stored
    with the model.

    Sample k starts from noise of seed `seed + k`. Up to rounding, it does not depend on `count`,
    `batch_size` or the number of processes. Under torchrun, each process draws its share; rank 0
    returns all samples, on the CPU, and the other processes return their own.

    A noise-conditioned model is integrated from gamma 0 to 1 in path_length / step_size Euler steps,
    even in gamma; the rule and the stop do not apply to it.

    Raises ValueError for labels that the model does not have, a `count` that does not match them,
    and a missing or wrong shape.

    >>> generate(lambda x, labels: x - 1, shape=(2,), count=3).x.shape
    torch.Size([3, 2])
    """
    labels = labels_or_prompts(model, labels, prompts)
    ends: Iterable[FinishedSample] = draw(
        model, labels, count=count, seed=seed, sampling=sampling, shape=shape, batch_size=batch_size
    )
    info = describe(model)
    like = torch.empty(0, *(shape or info.shape or ()), device=info.device, dtype=info.dtype)
    return collect(ends if info.sharded else gather(ends), like=like)


def gather(ends: Iterable[FinishedSample]) -> list[FinishedSample]:
    """The samples of all processes on rank 0, on the CPU, and each other rank's own there; with one
    process just `ends`. All processes must call it.

    Raises ValueError if torchrun started this process and `torch.distributed` is not initialized.
    """
    mine = list(ends) if isinstance(ends, Iterable) else [ends]
    if not all(isinstance(end, FinishedSample) for end in mine):
        raise ValueError(f"gather takes the samples that draw yields; got {kind_of(ends)}")
    if world_size() == 1:
        return mine
    if not distributed.is_initialized():
        raise ValueError(
            "torchrun started this process, so it draws only its share of the samples: "
            "call torch.distributed.init_process_group() first"
        )
    shares: list[list[FinishedSample]] | None = [[]] * world_size() if rank() == 0 else None
    distributed.gather_object([replace(end, x=end.x.cpu()) for end in mine], shares, dst=0)
    return mine if shares is None else [end for share in shares for end in share]


def trajectory(
    model: Model,
    labels: Labels = None,
    *,
    prompts: str | Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    shape: Sequence[int] | None = None,
    moments: int = 50,
) -> Trajectory:
    """The samples of `generate` on their way: at the start, at up to `moments` steps evenly spaced
    along the path, and at the end.

    Raises ValueError as `generate` does, for `moments` below 1 and for noise-conditioned models.
    """
    check_count(moments=moments)
    labels = labels_or_prompts(model, labels, prompts)
    start = prepare(model, labels, count=count, seed=seed, sampling=sampling, shape=shape)
    moments = min(moments, start.max_steps)
    return record_trajectory(
        start.field,
        start.noise,
        start.labels,
        rule=start.rule,
        stop=start.stop,
        max_steps=start.max_steps,
        at=[start.max_steps * k // moments for k in range(moments + 1)],
    )


def _flow(model: Model, start: Start, batch_size: int) -> Iterator[FinishedSample]:
    """The samples of a noise-conditioned model, a batch at a time."""
    decay = decay_of(model)
    for first in range(0, len(start), batch_size):
        part = start[first : first + batch_size]
        end = integrate(
            model,
            part.noise,
            part.labels,
            steps=part.sampling.max_steps,
            decay=decay,
            guidance=1.0 if part.labels is None else part.sampling.guidance,
            null_label=part.info.num_classes,
            guidance_interval=part.sampling.guidance_interval,
            guidance_norm=part.sampling.guidance_norm,
        )
        columns = (end.steps.tolist(), end.nfe.tolist(), end.gradient_norm.tolist())
        for k, row in enumerate(zip(end.x, *columns, end.outcome, strict=True)):
            yield FinishedSample(first + k, *row)
