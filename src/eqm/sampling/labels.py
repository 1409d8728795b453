"""Classes of a model, by number or by name, and sentences as tokens."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from difflib import get_close_matches

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eqm.checks import kind_of
from eqm.naming import find_class
from eqm.sampling.model import Model, ModelInfo, describe
from eqm.schema import shown
from eqm.text import text_of, tokens_of
from eqm.text.encoder import checked

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
    if describe(model).sentence:
        raise ValueError(
            "this model takes sentences, not classes: give prompts, such as 'a smiling cat'"
        )
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
    class numbers, as in training; there the number of classes is the null label.

    For a model of sentences the result is (count, length), the tokens of sentences; without labels it is
    None. Its labels are sentences, or a tensor of tokens. Raises ValueError
    for labels that the model does not have, or a number of them other than `count`.
    """
    info = describe(model)
    num_classes = info.num_classes
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    if info.sentence:
        return _sentences(model, info, labels, count)
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


def _sentences(model: Model, info: ModelInfo, labels: Labels, count: int | None) -> Tensor | None:
    """The tokens of sentences, one for each sample or one for all, (count, length)."""
    if labels is None:
        return None
    if isinstance(labels, str):
        labels = [labels] * (1 if count is None else count)
    if isinstance(labels, Tensor) and labels.ndim == 2:
        rows = _checked_tokens(labels, info)
    elif isinstance(labels, list | tuple) and all(isinstance(one, str) for one in labels):
        kinds = list(dict.fromkeys(map(str, labels)))
        known = tokens_of(text_of(info.metadata), kinds, info.sentence)
        number = {sentence: k for k, sentence in enumerate(kinds)}
        rows = known[[number[str(one)] for one in labels]]
    else:
        raise ValueError(
            f"this model takes sentences, not classes: give prompts, such as 'a smiling cat'; got {shown(labels)}"
        )
    if not len(rows) or (count is not None and len(rows) != count):
        raise ValueError(
            f"prompts must be one for each sample ({count or 'any number'}); got {len(rows)}"
        )
    return rows


def _checked_tokens(tokens: Tensor, info: ModelInfo) -> Tensor:
    """Tokens (N, L) filled to the model's length. Raises ValueError for what are none."""
    null = info.num_classes or 0
    whole = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
    if not whole or tokens.is_meta or tokens.shape[1] > info.sentence:
        raise ValueError(
            f"tokens must be whole numbers (N, L) with L up to {info.sentence}; got {kind_of(tokens)}"
        )
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) <= null:
        raise ValueError(
            f"tokens must lie in 0..{null} ({null} is no token); got {int(tokens.min())}..{int(tokens.max())}"
        )
    return F.pad(tokens.long(), (0, info.sentence - tokens.shape[1]), value=null)


def sentence_tokens(model: Model, sentence: str) -> tuple[int, ...]:
    """The tokens of a sentence, filled to the length that the model takes."""
    found = chosen_labels(model, [sentence], 1)
    assert found is not None
    return tuple(found[0].tolist())


def labels_or_prompts(model: Model, labels: Labels, prompts: str | Sequence[str] | None) -> Labels:
    """What conditions a model: `prompts` for one of sentences, `labels` for one of classes.

    Raises ValueError for both at once, prompts for a model of classes, and prompts that are no text.
    """
    if prompts is None:
        return labels
    if labels is not None:
        raise ValueError("give labels or prompts, not both")
    info = describe(model)
    if not info.sentence:
        instead = "its classes as labels" if info.num_classes else "none"
        raise ValueError(
            f"this model was trained without words and takes no prompt: give {instead}"
        )
    if isinstance(prompts, str):
        return prompts
    if not isinstance(prompts, list | tuple):
        raise ValueError(f"prompts must be text, or a list of texts; got {kind_of(prompts)}")
    return [checked(prompt) for prompt in prompts]


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
