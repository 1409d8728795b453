"""Classes of a model, by number or by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from eqm.sampling.model import Model, describe

Labels = Tensor | Sequence[int | str] | int | str | None
NONE = ("none", "null")  # the words for the null label
FEW = 20  # up to so many classes are all listed in an error


def class_names(model: Model) -> list[str]:
    """The names of the classes of a model; empty where the classes only have numbers.

    Raises ValueError where the stored names are no list.
    """
    data = describe(model).metadata.get("data") or {}
    names = data.get("classes") or ()
    if not isinstance(names, list | tuple):
        raise ValueError(f"the model's metadata must list names as data.classes; got {names!r}")
    return [str(name) for name in names]


def label_number(model: Model, label: str) -> int:
    """The number of the class called `label`; for `none` or `null` the null label.

    Names match in any case; the exact case wins where two names differ only in case. A whole number
    that is no name is a class number. Raises ValueError for a class that the model does not have,
    with the names that are most like it.
    """
    count, written = describe(model).num_classes, class_names(model)
    names = [name.lower() for name in written]
    if label in written:
        return written.index(label)
    if label.lower() in names:
        return names.index(label.lower())
    if count == 0:
        raise ValueError("this model was trained without classes: leave labels out")
    if label.isdecimal() and (count is None or int(label) <= count):
        return int(label)
    if count is None:
        raise ValueError(f"this field has no class names: give a number instead of {label!r}")
    if label.lower() in NONE:
        return count
    if label.isdecimal():
        raise ValueError(f"labels must lie in 0..{count - 1}, or be {count} for none; got {label}")
    if not names:
        raise ValueError(f"there is no class {label!r}, only numbers 0..{count - 1}")
    near = _near(label.lower(), written)
    hint = f": did you mean {', '.join(near)}?" if near else ""
    if len(names) <= FEW:
        raise ValueError(f"there is no class {label!r}, only {', '.join(written)}{hint}")
    listed = " `eqm info MODEL` lists all" if near else ": `eqm info MODEL` lists them"
    raise ValueError(f"there is no class {label!r} among {len(names)}{hint}{listed}")


def chosen_labels(model: Model, labels: Labels, count: int | None) -> Tensor | None:
    """The class of each sample, (count,) int64, or None for a model without classes.

    `labels` are one a sample, or one for all; without labels the classes take turns. Raises
    ValueError for labels that the model does not have, or a number of them other than `count`.
    """
    num_classes = describe(model).num_classes
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    if labels is None:
        if not num_classes:
            return None
        return torch.arange(num_classes if count is None else count) % num_classes
    if num_classes == 0:
        raise ValueError("this model was trained without classes: leave labels out")
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
    if chosen.min() < 0 or (num_classes is not None and chosen.max() > num_classes):
        allowed = "be 0 or more"
        if num_classes is not None:
            allowed = f"lie in 0..{num_classes - 1}, or be {num_classes} for none"
        raise ValueError(f"labels must {allowed}; got {int(chosen.min())}..{int(chosen.max())}")
    return chosen.long()


def _near(label: str, names: list[str]) -> list[str]:
    """Up to five names like `label`: those that contain it, else those with a word spelt much like
    it, the most similar first."""
    found = [name for name in names if label in name.lower()]
    if not found:
        words: dict[str, list[str]] = {}
        for name in names:
            for word in (name.lower(), *name.lower().split("-")):
                words.setdefault(word, []).append(name)
        found = [name for word in get_close_matches(label, words, n=5) for name in words[word]]
    return list(dict.fromkeys(found))[:5]
