"""The class numbers of samples: what labels may be, and which class a word is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqm.data.values import as_array

MAX_CLASSES = 1_000_000
"""A label above is an id, or a -1 that lost its sign."""


def class_labels(
    name: str, labels: Any, count: int
) -> tuple[Tensor | None, int, tuple[str, ...], tuple[str, ...]]:
    """The classes of `count` samples, (count,) int64; their number and names, and notes.

    `labels` are whole numbers of any type, one for each sample; or words; or rows with a single 1
    (one-hot). Without labels the result is None and 0. Raises ValueError for anything else.
    """
    if labels is None:
        return None, 0, (), ()
    array = as_array(name, labels)
    if array.dtype.kind == "O":
        raise ValueError(
            f"{name}: labels must be whole numbers or words; got Python objects, which are not unpacked: save "
            "labels.astype(int) or labels.astype(str), or turn data.labels off"
        )
    if array.size == count:
        array = array.reshape(-1)
    if array.ndim == 0 or len(array) != count:
        raise ValueError(
            f"{name}: {count:,} samples need as many labels; got labels of shape {array.shape}: pass one for each"
        )
    notes: tuple[str, ...] = ()
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "iufb":
        ones = ((array == 1).sum(1) == 1) & ((array == 0).sum(1) == array.shape[1] - 1)
        if not ones.all():
            row = int((~ones).argmax())
            raise ValueError(
                f"{name}: labels must be one class a sample; row {row} of labels {array.shape} does not "
                "hold a single 1: pass the number of each class, or turn data.labels off"
            )
        classes = array.shape[1]
        note = f"{name}: rows of labels with a single 1 are read as {classes} classes"
        return torch.from_numpy(array.argmax(1)), classes, (), (note,)
    if array.ndim == 1 and array.dtype.kind in "SU":
        return _words(name, array)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    if array.dtype.kind == "f" and (array == np.floor(array)).all() and abs(array).max() < 2**53:
        array = array.astype(np.int64)
        notes = (f"{name}: labels that are floats are read as whole numbers",)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise ValueError(
            f"{name}: labels must be whole numbers of shape (N,), words, or rows with a single 1; got "
            f"{array.dtype} {array.shape}: pass the number of each class, or turn data.labels off"
        )
    classes = count_classes(name, array)
    return torch.from_numpy(array.astype(np.int64)), classes, (), notes


def by_name(words: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """The class (N,) of each word, and the names of the classes: all words, in alphabetical order."""
    names = tuple(sorted(set(words)))
    number = {name: k for k, name in enumerate(names)}
    return torch.tensor([number[word] for word in words]), names


def contradict(one: Sequence[Hashable], other: Sequence[Hashable]) -> bool:
    """Whether two labellings of the same samples differ in more than how fine they are."""
    return len(set(zip(one, other, strict=True))) > min(len(set(one)), len(set(other)))


def _words(name: str, array: np.ndarray) -> tuple[Tensor, int, tuple[str, ...], tuple[str, ...]]:
    """Labels that are words or bytes: numbers stand for themselves, words for classes by the alphabet."""
    try:
        words = [w.decode() if isinstance(w, bytes) else w for w in array.tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: labels that are bytes must be UTF-8 ({error}): save them as words"
        ) from error
    if all(word.isdecimal() for word in words):
        numbers = [int(word) for word in words]
        classes = count_classes(name, numbers)
        return torch.tensor(numbers), classes, (), ()
    labels, names = by_name(words)
    note = f"{name}: {len(names)} words in the labels are the classes, in the order of the alphabet"
    return labels, len(names), names, (note,)


def count_classes(where: str, labels: Sequence[int] | np.ndarray) -> int:
    """The number of classes, given at least one label.

    Raises ValueError for negative labels, and for labels that would need too much memory."""
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= MAX_CLASSES:
        raise ValueError(
            f"{where}: labels must lie in 0..{MAX_CLASSES - 1:,}; got {low}..{high}: number the "
            "classes from 0"
        )
    return high + 1


def check_labels(name: str, labels: Tensor | None, length: int, num_classes: int) -> None:
    """Raises ValueError unless the labels are int64 (length,) in 0..num_classes-1."""
    if labels is None:
        if num_classes:
            raise ValueError(f"{name}: {num_classes} classes need labels; got none")
        return
    if labels.dtype != torch.int64 or labels.shape != (length,):
        raise ValueError(
            f"{name}: labels must be int64 of shape ({length},); "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name}: labels must lie in 0..{num_classes - 1}; got {low}..{high}")
