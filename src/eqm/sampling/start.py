"""One way to start: a model, labels, seeds and settings become all that a descent needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqm.checks import MOST_SAMPLES, check_count, check_seed, check_shape, kind_of
from eqm.descent import FinishedSample, LinearMultistep, MaxNFE, Rule, Stop, stream
from eqm.field import Field
from eqm.guidance import guide
from eqm.sampling.labels import Labels, chosen_labels
from eqm.sampling.model import (
    Model,
    ModelInfo,
    check_time_invariant,
    describe,
    folded_guidance,
    null_label,
)
from eqm.sampling.settings import Sampling


@dataclass(frozen=True, eq=False)
class Start:
    """The start of a descent from noise. Iterating over it gives the noise of each sample in turn."""

    field: Field
    """The field to descend, guided."""
    seeds: Sequence[int]
    """One seed a sample."""
    labels: Tensor | None
    """One label a sample, (B,), on the model's device; None to call the field without labels."""
    rule: Rule
    stop: Stop
    max_steps: int
    sampling: Sampling
    shape: tuple[int, ...]
    """Of one sample."""
    info: ModelInfo

    @property
    def noise(self) -> Tensor:
        """The noise of all samples, (B, *shape)."""
        noise = starting_noise(self.shape, seeds=self.seeds)
        return noise.to(self.info.device, self.info.dtype)

    def __len__(self) -> int:
        return len(self.seeds)

    def __iter__(self) -> Iterator[Tensor]:
        return (replace(self, seeds=[seed]).noise[0] for seed in self.seeds)

    def __getitem__(self, rows: slice) -> Start:
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, seeds=self.seeds[rows], labels=labels)

    def stream(self, *, batch_size: int) -> Iterator[FinishedSample]:
        """The samples, each as soon as it ends."""
        return stream(
            self.field,
            self,
            None if self.labels is None else self.labels.tolist(),
            rule=self.rule,
            stop=self.stop,
            max_steps=self.max_steps,
            batch_size=max(1, min(batch_size, len(self))),
            fixed=self.info.fixed_shapes,
        )


def prepare(
    model: Model,
    labels: Labels = None,
    *,
    count: int | None = None,
    seed: int = 0,
    sampling: Sampling | None = None,
    shape: Sequence[int] | None = None,
    classes_in_turn: bool = True,
    allow_noise_conditioned: bool = False,
) -> Start:
    """The start of `count` samples of a model; sample k has noise of seed `seed + k`.

    `labels` are numbers or names, one a sample or one for all. Without labels, the classes of the
    model take turns; with `classes_in_turn` off, the field is called without labels. `sampling` is
    by default what is stored with the model. `shape` (of one sample) is needed for a field that
    does not say its shape.

    Raises ValueError for labels that the model does not have, a count that does not match them, a
    missing or wrong shape, seeds of more than 63 bits, and noise-conditioned models.

    >>> start = prepare(lambda x, labels: x, shape=(2,), count=3)
    >>> start.noise.shape
    torch.Size([3, 2])
    """
    if not allow_noise_conditioned:
        check_time_invariant(model)
    info = describe(model)
    sampling = sampling_of(model, sampling)
    if count is not None:
        check_count(count=count)
        if count > MOST_SAMPLES:
            raise ValueError(
                f"count must be at most {MOST_SAMPLES:,}; got {count:,}: draw fewer at a time, with "
                "another seed each"
            )
    check_seed(count or 1, seed=seed)
    chosen = None
    if labels is not None or classes_in_turn:
        chosen = chosen_labels(model, labels, count)
    if chosen is not None:
        chosen = chosen.to(info.device)
        count = len(chosen)
    seeds = range(int(seed), int(seed) + (1 if count is None else count))
    check_seeds(seeds)
    rows = sampling.multistep_coefficients
    return Start(
        field=guided(model, sampling, chosen),
        seeds=seeds,
        labels=chosen,
        rule=LinearMultistep(rows) if rows else sampling.make_rule(),
        stop=MaxNFE(len(rows)) if rows else sampling.make_stop(),
        max_steps=len(rows) or sampling.max_steps,
        sampling=sampling,
        shape=_shape(info, shape),
        info=info,
    )


def guided(model: Model, sampling: Sampling, labels: Tensor | None) -> Field:
    """The field of a model, guided as `sampling` says where there are labels.

    Raises ValueError for guidance of a field that does not say its number of classes, and of a model with
    guidance folded in.
    """
    check_settings(sampling)
    _check_not_folded(model, sampling)
    if labels is None or sampling.guidance == 1:
        return model
    interval, fixed = sampling.guidance_interval, describe(model).fixed_shapes
    return guide(
        model,
        sampling.guidance,
        null_label(model),
        interval=interval,
        fixed=fixed,
        norm=sampling.guidance_norm,
    )


def sampling_of(model: Model, sampling: Sampling | None) -> Sampling:
    """The settings given, by default those stored with the model.

    Raises ValueError for what are no settings, and for guidance of a model with guidance folded in.
    """
    if sampling is None:
        return Sampling.of(describe(model).metadata)
    check_settings(sampling)
    _check_not_folded(model, sampling)
    return sampling


def _check_not_folded(model: Model, sampling: Sampling) -> None:
    folded = folded_guidance(describe(model).metadata)
    if folded != 1 and sampling.guidance != 1:
        raise ValueError(
            f"guidance {folded:g} is folded into this model, which has no other; got {sampling.guidance:g}: "
            "leave guidance out, or use the model that it was distilled from"
        )


def check_settings(sampling: object) -> None:
    """Raises ValueError for what are no sampling settings."""
    if not isinstance(sampling, Sampling):
        raise ValueError(f"sampling must be an eqm.Sampling; got {kind_of(sampling)}")


def labels_of(model: Model, labels: Labels, x: Tensor) -> Tensor | None:
    """The class of each of x (B, ...), (B,) on its device; None without labels.

    Raises ValueError as `chosen_labels` does.
    """
    if labels is None or not len(x):
        return None
    chosen = chosen_labels(model, labels, len(x))
    return None if chosen is None else chosen.to(x.device)


def starting_noise(shape: Sequence[int], *, seeds: Sequence[int]) -> Tensor:
    """Normal noise (len(seeds), *shape), each row from its own seed, whatever the others are.

    Raises ValueError for seeds of more than 63 bits.
    """
    check_seeds(seeds)
    check_shape(shape)
    rows = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(seed)))
        for seed in seeds
    ]
    return torch.stack(rows) if rows else torch.empty(0, *shape)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError for a seed of more than 63 bits."""
    if isinstance(seeds, range):
        seeds = [*seeds[:1], *seeds[-1:]]
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        raise ValueError(f"seeds must be whole numbers in a list; got {kind_of(seeds)}")
    for seed in seeds:
        check_seed(seed=seed)


def _shape(info: ModelInfo, shape: Sequence[int] | None) -> tuple[int, ...]:
    if shape is None:
        if info.shape is None:
            raise ValueError(
                "this field does not say the shape of a sample: pass it, such as shape=(2,)"
            )
        return info.shape
    check_shape(shape)
    if info.shape is not None and tuple(shape) != info.shape:
        raise ValueError(f"shape must be that of the model, {info.shape}; got {tuple(shape)}")
    return tuple(shape)
