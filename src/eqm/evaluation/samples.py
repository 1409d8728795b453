"""Sets of images, or of samples of another kind, read or drawn in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from inspect import signature
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from eqm.data import Source
from eqm.data.source import digest
from eqm.data.values import in_own_units
from eqm.descent import Outcome
from eqm.devices import rank, world_size
from eqm.encoders import Encoder
from eqm.energy import Energy
from eqm.evaluation.protocol import SampleSet
from eqm.models import Network, for_inference
from eqm.randomness import SampleRandom, generator_at
from eqm.registry import lookup
from eqm.sampling import Sampling, prepare
from eqm.sampling.labels import labels_or_prompts
from eqm.tasks import draw


class Batch(NamedTuple):
    """Some images of a set."""

    images: Tensor
    """(B, C, H, W), float32 in -1..1; samples (B, ...) of another kind in the units of their data."""
    labels: Tensor | None
    """(B,), or None."""
    numbers: Tensor
    """The index of each image in the set, (B,)."""


@dataclass(frozen=True, eq=False)
class Samples:
    """A set of images that is read once, in batches, and need not fit in memory."""

    sample_set: SampleSet
    shape: tuple[int, ...]
    """The shape of one image."""
    num_classes: int
    """0 without labels."""
    batches: Callable[[int], Iterator[Batch]] = field(repr=False)
    """The images, in batches of at most this size; under torchrun, the part of this process."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The metadata of the model that draws the images."""

    def __len__(self) -> int:
        assert self.sample_set.count is not None  # only unknown for files of statistics
        return self.sample_set.count


def from_source(source: Source, *, count: int | None = None, skip: int = 0) -> Samples:
    """The images of a source, or a fixed random subset: `count` images after the first `skip`.

    Raises ValueError if the source has fewer.
    """
    left = len(source) - skip
    if count is not None and not 0 < count <= left:
        raise ValueError(f"count must lie in 1..{left}, the images of {source.name}; got {count}")
    generator = generator_at("evaluation", seed=0, position=0)
    picked = torch.randperm(len(source), generator=generator)[skip:][:count].sort().values

    def batches(size: int) -> Iterator[Batch]:
        for numbers in torch.arange(len(picked))[rank() :: world_size()].split(size):
            rows = picked[numbers]
            labels = None if source.labels is None else source.labels[rows]
            yield Batch(measured(source, rows, SampleRandom(0, numbers)), labels, numbers)

    labels = "none" if source.labels is None else f"its own, of {source.num_classes} classes"
    left_out = getattr(source, "broken", {})
    unreadable = (
        {"unreadable": f"{len(left_out):,}, such as {next(iter(left_out))}"} if left_out else {}
    )
    sample_set = SampleSet(source.name, len(picked), source.fingerprint, labels, unreadable)
    return Samples(sample_set, tuple(source.shape), source.num_classes, batches)


def measured(source: Source, rows: Tensor, random: SampleRandom) -> Tensor:
    """The images of a source at `rows` (B,); samples of another kind in the units of their data."""
    samples = source.batch(rows, random)
    return _in_units(samples, {"data": getattr(source, "metadata", {})})


def _in_units(samples: Tensor, metadata: Mapping[str, Any]) -> Tensor:
    return samples if samples.ndim == 4 else in_own_units(samples, metadata)


def drawn(
    model: Network | Energy,
    encoder: Encoder,
    *,
    name: str,
    count: int,
    seed: int = 0,
    sampling: Sampling | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    captions: Sequence[str] = (),
) -> Samples:
    """Images that a model generates while they are measured, of each class in turn, or of each of the
    `captions` in turn for a model of sentences.

    Image k starts from noise of seed `seed + k`, the same for every model. Drawing raises ValueError as
    `eqm.tasks.draw` does, and if a sample diverges.
    """
    prompts = [captions[k % len(captions)] for k in range(count)] if captions else None
    labels = labels_or_prompts(model, None, prompts)
    start = prepare(
        model, labels, count=count, seed=seed, sampling=sampling, allow_noise_conditioned=True
    )
    words = start.info.sentence > 0
    chosen, classes = start.sampling, 0 if words else start.info.num_classes or 0
    conditions = f"{classes} classes in turn" if classes else "none"
    if words:
        conditions = f"{len(captions):,} captions in turn" if captions else "the empty sentence"
    fast = for_inference(model, precision=precision)

    def batches(size: int) -> Iterator[Batch]:
        ends = draw(fast, start.labels, count=count, seed=seed, sampling=chosen, batch_size=size)
        while some := list(islice(ends, size)):
            failed = [end.index for end in some if end.outcome is Outcome.DIVERGED]
            if failed:
                raise ValueError(
                    f"{name}: sample {failed[0]} diverged, and leaving it out would make the metrics look "
                    "better: use a smaller step size"
                )
            numbers = torch.tensor([end.index for end in some])
            images = encoder.decode(torch.stack([end.x for end in some])).float()
            images = _in_units(images, model.metadata)
            yield Batch(images, numbers % classes if classes else None, numbers)

    weights = ((key, weight.cpu().float()) for key, weight in model.state_dict().items())
    half = torch.bfloat16 in {weight.dtype for weight in fast.parameters()}
    sample_set = SampleSet(
        name,
        count,
        digest(*(part for item in weights for part in item)),
        conditions,
        {
            "seeds": f"{seed}..{seed + count - 1}",
            "precision": "bfloat16" if half else str(fast.dtype).removeprefix("torch."),
            **_used(
                chosen,
                labelled=start.labels is not None,
                noise_conditioned=start.info.noise_conditioning,
            ),
        },
    )
    shape = tuple(encoder.image_shape_of(start.shape))
    return Samples(sample_set, shape, classes, batches, model.metadata)


def _used(sampling: Sampling, *, labelled: bool, noise_conditioned: bool) -> dict[str, Any]:
    """The settings that affect samples; a noise-conditioned model uses Euler steps, whatever the rule."""
    settings = asdict(sampling)
    idle = {"gradient_ratio", "stop", "stop_options", "rule_options"}
    if noise_conditioned:
        settings["rule"] = "euler, even in gamma"
        idle |= {"momentum", "multistep_coefficients"}
    elif sampling.multistep_coefficients:
        idle |= {"rule", "step_size", "momentum", "path_length"}
    else:
        idle = {"step_size", "momentum"} - signature(
            lookup("rule", sampling.rule)
        ).parameters.keys()
    if not labelled or sampling.guidance == 1:
        idle |= {"guidance", "guidance_interval"}
    if "guidance" in idle or not sampling.guidance_norm:
        idle |= {"guidance_norm"}
    return {
        name: value
        for name, value in settings.items()
        if name not in idle and value not in (None, "", ())
    }
