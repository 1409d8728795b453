"""Classes of a model, by number or by name."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from eqm.checks import kind_of
from eqm.naming import find_class
from eqm.sampling.model import Model, describe
from eqm.schema import shown

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


def label_number(model: Model, label: str | int) -> int:
    """The number of the class called `label`; for `none` or `null` the null label.

    Names match as people type them: see `find_class`. A whole number that is no name is a class
    number, and `2` and `"2"` mean the same. Raises ValueError for a class that the model does not
    have, with the names that are most like it, and for a name that may mean several.
    """
    count, names = describe(model).num_classes, class_names(model)
    text = str(label).strip()
    known = names or [str(number) for number in range(count or 0)]
    whole = re.fullmatch(r"[+-]?\d{1,30}", text) is not None
    negative = whole and int(text) < 0 and text not in known  # its sign is no mere punctuation
    if not negative and (found := find_class(label, known)) is not None:
        return found
    if count == 0:
        raise ValueError("this model was trained without classes: leave labels out")
    if count is None:
        if whole and int(text) >= 0:
            return int(text)
        raise ValueError(f"this field has no class names: give a number instead of {label!r}")
    if text.lower() in NONE:
        return count
    if negative or (whole and not (names and all(name.isdecimal() for name in names))):
        raise ValueError(f"labels must lie in 0..{count - 1}, or be none for no class; got {text}")
    if not names:
        raise ValueError(f"there is no class {shown(text)}, only numbers 0..{count - 1}")
    near = _near(text.lower(), names)
    hint = f": did you mean {', '.join(near)}?" if near else ""
    if len(names) <= FEW:
        raise ValueError(f"there is no class {shown(text)}, only {', '.join(names)}{hint}")
    listed = " `eqm info MODEL` lists all" if near else ": `eqm info MODEL` lists them"
    raise ValueError(f"there is no class {shown(text)} among {len(names)}{hint}{listed}")


def chosen_labels(model: Model, labels: Labels, count: int | None) -> Tensor | None:
    """The class of each sample, (count,) int64, or None for a model without classes.

    `labels` are one a sample, or one for all; without labels the classes take turns. Names and
    numbers, alone or in a list, are those of `label_number`. A tensor or array of whole numbers holds
    class numbers, as in training; there the number of classes is the null label. Raises ValueError
    for labels that the model does not have, or a number of them other than `count`.
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
    chosen = _numbers(model, labels)
    if chosen is not None and chosen.ndim == 0:
        chosen = chosen.expand(1 if count is None else count)
    if (
        chosen is None
        or chosen.ndim != 1
        or len(chosen) == 0
        or chosen.dtype == torch.bool
        or chosen.is_floating_point()
        or chosen.is_complex()
        or (count is not None and len(chosen) != count)
    ):
        found = kind_of(labels) if hasattr(labels, "shape") else str(labels)[:60]
        raise ValueError(
            f"labels must be whole numbers or names, one a sample ({count or 'any number'}); got {found}"
        )
    if chosen.min() < 0 or (num_classes is not None and chosen.max() > num_classes):
        allowed = "be 0 or more"
        if num_classes is not None:
            allowed = f"lie in 0..{num_classes - 1}, or be {num_classes} for none"
        raise ValueError(f"labels must {allowed}; got {int(chosen.min())}..{int(chosen.max())}")
    return chosen.long()


def _numbers(model: Model, labels: object) -> Tensor | None:
    """Labels as a tensor, or None for what can be no labels."""
    if isinstance(labels, Tensor) or (
        isinstance(labels, np.ndarray) and labels.dtype.kind in "biu"
    ):
        return None if isinstance(labels, Tensor) and labels.is_meta else torch.as_tensor(labels)
    if not isinstance(labels, list | tuple | range | np.ndarray):
        number = _number(model, labels)
        return None if number is None else torch.tensor(number)
    known: dict[object, int | None] = {}  # for 50,000 labels of a few classes
    for one in labels:
        if not isinstance(one, Hashable):
            return None
        if (type(one), one) not in known:
            known[type(one), one] = _number(model, one)
    numbers = [known.get((type(one), one)) for one in labels]  # NaN is not itself
    return None if None in numbers else torch.tensor(numbers, dtype=torch.int64)


def _number(model: Model, label: object) -> int | None:
    if isinstance(label, Tensor):
        whole = label.numel() == 1 and not label.is_floating_point() and label.dtype != torch.bool
        return int(label) if whole else None
    if isinstance(label, bool) or not isinstance(label, str | int | np.integer):
        return None
    return label_number(model, label if isinstance(label, str) else int(label))


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
