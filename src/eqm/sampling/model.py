"""What is read from a model, with the value that holds where it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eqm.checks import check_field, check_shape, kind_of

Model = Callable[..., Tensor]
"""Anything that can be sampled: a network, an energy, or any `field(x, labels) -> gradient`."""


@dataclass(frozen=True)
class ModelInfo:
    """What `describe` reads from a model."""

    shape: tuple[int, ...] | None
    """Of one sample; None if the model does not say."""
    num_classes: int | None
    """Number of classes, which is also the null label; None if the model does not say."""
    noise_conditioning: bool
    sentence: int
    """The most tokens of a sentence, for a model that takes sentences; 0 for one of classes."""
    metadata: dict[str, Any]
    """What was stored with the weights: data, training, sampling settings."""
    device: torch.device
    dtype: torch.dtype
    """Of the samples that the model takes."""
    fixed_shapes: bool
    """Whether batches should keep one size, as for a compiled network."""
    sharded: bool
    """Whether each process holds only a part of every weight (FSDP)."""


def describe(model: Model) -> ModelInfo:
    """What a model says about itself: by its `config` or its own attributes, its metadata and its
    weights.

    Raises ValueError for what cannot be called as a model, and for a shape or metadata of another kind.
    """
    check_field(model)
    config = getattr(model, "config", None) or model
    shape = getattr(config, "shape", None)
    if shape is not None:
        check_shape(shape)
    metadata = getattr(model, "metadata", None) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"the metadata of a model must be a dict; got {kind_of(metadata)}")
    weight = next(iter(getattr(model, "parameters", tuple)()), None)
    like = torch.empty(0) if weight is None else weight
    return ModelInfo(
        shape=None if shape is None else tuple(shape),
        num_classes=getattr(config, "num_classes", None),
        noise_conditioning=bool(getattr(config, "noise_conditioning", False)),
        sentence=_sentence(getattr(config, "text", None)),
        metadata=metadata,
        device=like.device,
        dtype=getattr(model, "dtype", like.dtype),
        fixed_shapes=getattr(model, "fixed_shapes", False),
        sharded=hasattr(weight, "device_mesh"),
    )


def _sentence(text: object) -> int:
    length = getattr(text, "length", 0) if getattr(text, "encoder", "") else 0
    return length if isinstance(length, int) else 0


def folded_guidance(metadata: dict[str, Any]) -> float:
    """The guidance scale that training or distillation has put into the field itself; 1 is none."""
    trained = (metadata.get("training") or {}).get("objective.guidance", 1)
    return float((metadata.get("distillation") or {}).get("guidance", trained))


def null_label(model: Model) -> int:
    """The label that stands for "no class": the number of classes.

    Raises ValueError for a model that does not say its number of classes.
    """
    count = describe(model).num_classes
    if count is None:
        raise ValueError(
            "guidance and composition need the null label, and this field has no num_classes: "
            "add that attribute, or take guidance 1"
        )
    return count


def check_time_invariant(model: Model) -> None:
    """Raises ValueError for a noise-conditioned model."""
    if describe(model).noise_conditioning:
        raise ValueError(
            "this needs a time-invariant field, and the model is noise-conditioned: "
            "sample it with eqm.tasks.generate, or use another model"
        )
