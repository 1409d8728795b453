"""Classes of a model, by number or by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

Labels = Tensor | Sequence[int | str] | int | str | None
NONE = ("none", "null")
"""The words for the unlabelled field."""
FEW = 20
"""Classes that an error lists."""


def class_names(model: Any) -> list[str]:
    """What the classes of a model are called; empty where they have numbers alone.

    Raises ValueError where what is stored with the model is no list of names.
    """
    data = getattr(model, "metadata", {}).get("data") or {}
    names = data.get("classes") or ()
    if not isinstance(names, list | tuple):
        raise ValueError(f"the model's metadata must list names as data.classes; got {names!r}")
    return [str(name) for name in names]


def label_number(model: Any, label: str) -> int:
    """The number of the class of that name, in capitals or not; of `none` that of the null label.

    Of names that differ in capitals alone it is the one that is written as `label` is. Where no class
    has the name, one that is a whole number is a number. Raises ValueError for a class that the model
    does not have.
    """
    count, written = model.config.num_classes, class_names(model)
    names = [name.lower() for name in written]
    if label in written:
        return written.index(label)
    if label.lower() in names:
        return names.index(label.lower())
    if not count:
        raise ValueError("this model was trained without classes: leave labels out")
    if label.lower() in NONE:
        return int(count)
    if label.isdecimal() and int(label) <= count:
        return int(label)
    if label.isdecimal():
        raise ValueError(f"labels must lie in 0..{count - 1}, or be {count} for none; got {label}")
    if not names:
        raise ValueError(f"there is no class {label!r}, only numbers 0..{count - 1}")
    if len(names) <= FEW:
        raise ValueError(f"there is no class {label!r}, only {', '.join(written)}")
    parts = [name for name in names if label.lower() in name.split("-")]
    near = ", ".join(parts or get_close_matches(label.lower(), names, cutoff=0.5))
    raise ValueError(
        f"there is no class {label!r} among {len(names)}"
        + (f", but {near}" if near else "")
        + ": `eqm info MODEL` lists them"
    )


def chosen_labels(model: Any, labels: Labels, count: int | None) -> Tensor | None:
    """The class of each sample, (count,) int64, or None for a model without classes.

    `labels` are one a sample, or one for all; without, the classes take turns. Raises ValueError for
    labels that the model does not have, or another number of them than `count`.
    """
    num_classes = model.config.num_classes
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    if num_classes == 0:
        if labels is not None:
            raise ValueError("this model was trained without classes: leave labels out")
        return None
    if labels is None:
        return torch.arange(num_classes if count is None else count) % num_classes
    numbers: Any = labels
    if isinstance(labels, str):
        numbers = label_number(model, labels)
    elif isinstance(labels, Iterable) and not isinstance(labels, Tensor):
        numbers = [label_number(model, one) if isinstance(one, str) else one for one in labels]
    chosen = torch.as_tensor(numbers)
    if chosen.ndim == 0:
        chosen = chosen.expand(1 if count is None else count)
    if (
        chosen.ndim != 1
        or len(chosen) == 0
        or chosen.is_floating_point()
        or (count is not None and len(chosen) != count)
    ):
        raise ValueError(
            f"labels must be whole numbers or names, one a sample ({count or 'any number'}); got {labels}"
        )
    if chosen.min() < 0 or chosen.max() > num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, or be {num_classes} for none; "
            f"got {int(chosen.min())}..{int(chosen.max())}"
        )
    return chosen.long()
