"""What the numbers of an array mean: which axis is which, which value is black, which class is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqm.data.images import check_finite, count_classes

Range = tuple[float, float]
"""The values of black and white."""
BYTES: Range = (0.0, 255.0)
SIGNED: Range = (-1.0, 1.0)
WORDS: Range = (0.0, 65535.0)
"""Of 16 bits."""
UNIT: Range = (0.0, 1.0)
_DARK = {"uint8": 17, "uint16": 16384}
"""Below it, the largest value does not show that all bits of the type are used."""
_TOLERANCE = 1.001
_KINDS = {
    "O": "Python objects, which may run code when they are read",
    "c": "complex numbers",
    **dict.fromkeys("mM", "dates or times"),
    **dict.fromkeys("SU", "words"),
    "V": "records",
}


@dataclass(frozen=True)
class Wanted:
    """The pictures that a trained model takes, to which arrays are then read alike."""

    shape: tuple[int, ...]
    """Channels, height and width."""
    kind: str = ""
    """The kind of numbers that the model was trained on, as of `kind_of`; empty if it was not told."""
    range: Range = SIGNED
    """Their values of black and white."""
    layout: str = ""
    """The axes that the training was told."""

    @classmethod
    def of(cls, shape: Sequence[int], metadata: Mapping[str, Any]) -> Wanted:
        """What a model of these metadata takes, pictures of this shape."""
        data, training = metadata.get("data") or {}, metadata.get("training") or {}
        values, layout = data.get("values") or {}, training.get("data.layout") or ""
        try:
            black, white = map(float, values.get("range", SIGNED))
            if not (isfinite(black) and isfinite(white) and black != white):
                raise ValueError(f"black is {black} and white {white}")
            return cls(tuple(shape), str(values.get("kind", "")), (black, white), str(layout))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the model's metadata do not say how its data were read ({error}): save it again"
            ) from error

    def limits(self, array: np.ndarray) -> Range | None:
        """The range of the training data, if the array holds numbers of the same kind."""
        return self.range if self.kind == kind_of(array) else None


def plain(name: str, values: Any) -> np.ndarray:
    """The array with real numbers or bools, in the byte order of this machine.

    Raises ValueError for arrays that are empty, masked, or of anything but real numbers.
    """
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            raise ValueError(
                f"{name}: {np.ma.getmaskarray(values).sum():,} values are masked: pass array.filled(VALUE)"
            )
        values = values.data
    array = _as_array(name, values)
    if array.dtype.names or array.dtype.kind in _KINDS:
        fields = f" with the fields {', '.join(array.dtype.names)}" if array.dtype.names else ""
        raise ValueError(
            f"{name}: an array must hold real numbers; got {_KINDS[array.dtype.kind]}{fields} "
            f"({array.dtype}): save an array of numbers"
        )
    if not array.size:
        raise ValueError(
            f"{name}: the array is empty, of shape {array.shape}: save at least one sample"
        )
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
    array = array.astype(np.float64 if wide else array.dtype.newbyteorder("="), copy=False)
    # torch takes neither steps backwards nor memory that must not be written
    backwards = any(step < 0 for step in array.strides)
    return array if array.flags.writeable and not backwards else array.copy()


def _as_array(name: str, values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        known = values.dtype in (torch.float16, torch.float32, torch.float64)
        try:
            values = values.detach().cpu()
            values = values.to_dense() if values.layout != torch.strided else values
            values = values.float() if values.is_floating_point() and not known else values
            return values.resolve_conj().resolve_neg().numpy()
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"{name}: a tensor of {values.dtype} is no array ({error})") from error
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: samples must form one array ({error})") from error


def find_layout(
    name: str,
    array: np.ndarray,
    *,
    labels: int | None = None,
    several: bool = False,
    shape: Sequence[int] = (),
) -> str:
    """The order of the axes, such as NHWC, by the letters of `DataConfig.layout`.

    It follows from the sizes of the axes, from the number of `labels`, from whether the array is
    known to hold `several` pictures, and from the `shape` (C, H, W) that a model takes. Raises
    ValueError, naming the layouts that fit, where it is not certain.
    """
    sizes = array.shape
    if not 2 <= len(sizes) <= 4:
        raise ValueError(
            f"{name}: an array must have 2 to 4 axes: points (N, C), signals (N, C, L) or pictures "
            f"(N, H, W), (N, H, W, C) or (N, C, H, W); got shape {sizes}: train on others from Python"
        )
    found, fitting = _FINDERS[len(sizes)](array, labels, several)
    if shape:  # a model of pictures was given
        letters = [layout for layout in fitting if "H" in layout]
        same = [layout for layout in letters if picture_shape(sizes, layout) == tuple(shape)]
        alike = [layout for layout in letters if picture_shape(sizes, layout)[0] == shape[0]]
        for suited in (same, alike, letters):
            if found in suited:
                return found
            if len({_arrangement(sizes, layout) for layout in suited}) == 1:
                return suited[0]
    if not found:
        likely = [x for x in fitting if "H" not in x or _is_likely(*picture_shape(sizes, x))]
        fitting = likely if len(likely) > 1 else fitting
        raise ValueError(
            f"{name}: an array of shape {sizes} can be {_listed([_meaning(sizes, x) for x in fitting])}: "
            "set data.layout (--layout) to the order of its axes, or save the pictures as PNG files"
        )
    return found


def _meaning(sizes: Sequence[int], layout: str) -> str:
    at = dict(zip(layout, sizes, strict=True))
    if "L" in layout:
        return f"{layout} ({at['N']:,} signals of {at['L']:,} values and {at['C']} channel{'s' * (at['C'] > 1)})"
    if "H" not in layout:
        return f"{layout} ({at['N']:,} points of {at['C']} columns)"
    count, channels = at.get("N", 1), at.get("C", 1)
    return (
        f"{layout} ({count:,} picture{'s' * (count > 1)} of {at['W']}x{at['H']} pixels and {channels} "
        f"channel{'s' * (channels > 1)})"
    )


def _listed(words: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def picture_shape(sizes: Sequence[int], layout: str) -> tuple[int, int, int]:
    """Channels, height and width of the pictures of an array."""
    at = dict(zip(layout, sizes, strict=True))
    return at.get("C", 1), at["H"], at["W"]


def _arrangement(sizes: Sequence[int], layout: str) -> tuple[object, ...]:
    """Equal for layouts that give the same samples: axes of size 1 have no place."""
    order = [letter for letter, size in zip(layout, sizes, strict=True) if size > 1]
    return (picture_shape(sizes, layout), *order) if "H" in layout else (layout,)


def _of_two(array: np.ndarray, labels: int | None, several: bool) -> tuple[str, list[str]]:
    rows, columns = array.shape
    if labels == columns != rows:
        return "CN", ["CN"]
    if several or labels == rows != columns or columns <= 3 or rows > 16 * columns:
        return "NC", ["NC"]
    return "", ["HW", "NC", "CN"] if labels else ["HW", "NC"]


def _of_three(array: np.ndarray, labels: int | None, several: bool) -> tuple[str, list[str]]:
    first, middle, last = array.shape
    fitting = ["NHW", "NCL"]
    if labels is None or labels == last:
        fitting.append("HWN")
    if labels in (None, 1) and not several:
        fitting += ["HWC", "CHW"]
    upright, lying = _is_picture(middle, last), _is_picture(first, middle)
    if labels == first != last:
        return ("NHW" if upright else ""), ["NHW", "NCL"]
    if labels == last != first:
        return ("HWN" if lying else ""), ["HWN"]
    if (
        first == 1
        and (min(middle, last) > 1 or middle == last)
        and max(middle, last) <= 8 * min(middle, last)
    ):
        return "NHW", fitting
    if upright:
        turned = first == middle  # then the first two axes are a square
        return ("" if turned else "NHW"), fitting
    if lying and last in (1, 3, 4) and not several:
        return "HWC", fitting
    if lying and last > 4 and first == middle and array.dtype.kind != "f":
        return "HWN", fitting
    return "", fitting


def _of_four(array: np.ndarray, labels: int | None, several: bool) -> tuple[str, list[str]]:
    sizes = array.shape
    first, last = _channels_at(sizes[1:]), _channels_at(sizes[:3])
    if labels == sizes[3] != sizes[0]:
        return (f"{last}N" if last else ""), ["HWCN", "CHWN"]
    if first:
        return f"N{first}", ["NCHW", "NHWC"]
    if labels is None and last == "HWC" and sizes[0] == sizes[1]:
        return "HWCN", ["HWCN"]
    return "", ["NCHW", "NHWC"] + ["HWCN"] * (labels != sizes[0])


_Finder = Callable[[np.ndarray, int | None, bool], tuple[str, list[str]]]
"""The layout, or nothing where it is not certain, and those that are possible."""
_FINDERS: dict[int, _Finder] = {2: _of_two, 3: _of_three, 4: _of_four}


def _is_picture(height: int, width: int) -> bool:
    """Whether two axes can well be height and width."""
    small, large = sorted((height, width))
    return 1 < small == large or (small >= 5 and large <= 8 * small)


def _is_likely(channels: int, height: int, width: int) -> bool:
    return _is_picture(height, width) and channels <= max(height, width)


def _channels_at(sizes: Sequence[int]) -> str:
    """CHW or HWC for the sizes of three axes, or nothing where both are possible.

    A square tells the sides: pictures in arrays are rarely of other sides. Without one, the channels
    must be far fewer than the pixels of a side."""
    first, middle, last = sizes
    if _arrangement(sizes, "CHW") == _arrangement(sizes, "HWC"):
        return "CHW"
    readings = {"CHW": (first, middle, last), "HWC": (last, first, middle)}
    for layout, other in (("CHW", "HWC"), ("HWC", "CHW")):
        channels, height, width = readings[layout]
        if height == width and (channels < height or _is_odd(*readings[other])):
            return layout
    for layout, other in (("CHW", "HWC"), ("HWC", "CHW")):
        channels, height, width = readings[layout]
        few = channels <= 4 or 2 * channels <= min(height, width)
        fits = few and max(height, width) <= 8 * min(height, width)
        more, high, wide = readings[other]
        unlike = high != wide and (min(high, wide) == 1 or (more > 4 and more >= min(high, wide)))
        if fits and unlike:
            return layout
    return ""


def _is_odd(channels: int, height: int, width: int) -> bool:
    """Whether hardly any picture has these sizes."""
    small, large = sorted((height, width))
    return small < large and (small == 1 or large > 8 * small or channels > 4)


def arranged(array: np.ndarray, layout: str) -> np.ndarray:
    """The pictures (N, C, H, W), signals (N, C, L) or points (N, C) of an array, without a copy."""
    order = "NCHW" if "H" in layout else "NCL" if "L" in layout else "NC"
    found = array.transpose([layout.index(letter) for letter in order if letter in layout])
    missing = tuple(place for place, letter in enumerate(order) if letter not in layout)
    return np.expand_dims(found, missing)


def kind_of(array: np.ndarray) -> str:
    """The kind of numbers that share a range: bool, uint8, uint16, float, or int for other integers."""
    return {"f": "float", "b": "bool"}.get(array.dtype.kind) or (
        array.dtype.name if array.dtype.name in _DARK else "int"
    )


def find_range(name: str, array: np.ndarray, *, alone: bool = False) -> Range:
    """The values of black and white in pictures (N, ...).

    It follows from the type and the values of all pictures. `alone` says that the pictures may be
    too few to show their darkest and brightest values, as the input of a model may be. Raises
    ValueError, naming ranges that fit, where it is not certain, and for NaN and infinity.
    """
    kind = kind_of(array)
    if kind == "bool":
        return UNIT
    low, high = extremes(name, array)
    if kind in _DARK:
        whole = BYTES if kind == "uint8" else WORDS
        full = high == 0 or high >= _DARK[kind] or (alone and kind == "uint8" and high > 1)
        return whole if full else _refuse(name, kind, low, high)
    if kind == "int":
        for dtype, known in (("uint8", BYTES), ("uint16", WORDS)):
            if low >= 0 and (_DARK[dtype] <= high <= known[1] or high == 0):
                return known
        return _refuse(name, "integers", low, high)
    if -_TOLERANCE <= low < 0 and high <= min(_TOLERANCE, -4 * low):
        return SIGNED
    if low == high == 1:
        return SIGNED  # white, in 0..1 too
    if 0 <= low < high <= _TOLERANCE:
        return UNIT
    if low >= 0 and 128 <= high <= 255:
        return BYTES
    return _refuse(name, "floats", low, high)


def extremes(name: str, array: np.ndarray) -> Range:
    """The least and the greatest value. Raises ValueError for NaN and infinity."""
    with np.errstate(invalid="ignore"):
        low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        check_finite(name, torch.from_numpy(array))
    return low, high


def _refuse(name: str, kind: str, low: float, high: float) -> Range:
    if kind == "floats":
        fitting = [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (0.0, 65535.0)]
    else:
        bits = next((bits for bits in (1, 8, 10, 12, 14, 16) if high < 2**bits), 0)
        fitting = [(0.0, 2.0**bits - 1), (0.0, 255.0 if kind == "uint8" else 65535.0)]
    if low >= 0 and high > 1 and (kind == "floats" or high <= 255):
        fitting.insert(0, (0.0, high))
    fitting = [
        limits for limits in dict.fromkeys(fitting) if limits[0] <= low and high <= limits[1]
    ]
    advice = ", such as " * bool(fitting) + _listed([f"{a:.9g} {b:.9g}" for a, b in fitting][:4])
    raise ValueError(
        f"{name}: it is not certain which values of these {kind} are black and white; they lie in "
        f"{low:g}..{high:g}: set data.range (--range) to both{advice}, or rescale to bytes 0..255"
    )


def scaled(name: str, array: np.ndarray, limits: Range) -> Tensor:
    """Pictures (N, ...) as bytes 0..255, or as float32 from black -1 to white 1.

    `limits` are the values of black and white. Raises ValueError for other values, NaN and infinity.
    """
    if array.dtype == bool:
        return torch.from_numpy(array.astype(np.uint8) * 255)
    if array.dtype == np.uint8 and limits == BYTES:
        return torch.from_numpy(array)
    black, white = limits
    half = (white - black) / 2
    low, high = extremes(name, array)
    if max(abs((value - black) / half - 1) for value in (low, high)) > _TOLERANCE:
        raise ValueError(
            f"{name}: values must lie in {min(limits):g}..{max(limits):g}; got {low:g}..{high:g}: "
            "set data.range (--range) to the values of black and white, or rescale them"
        )
    if limits == SIGNED:
        return torch.from_numpy(array.astype(np.float32, copy=False))
    out = torch.empty(array.shape)
    exact = np.float32 if array.dtype.itemsize <= 2 else np.float64
    for start in range(0, len(array), 1024):  # bounds the memory for float64
        part: Any = array[start : start + 1024].astype(exact)
        out[start : start + 1024] = torch.from_numpy((part - exact(black)) / exact(half) - exact(1))
    return out


def range_note(name: str, array: np.ndarray, limits: Range) -> tuple[str, ...]:
    """A sentence about the range, unless it is the usual one of the type."""
    usual = {"uint8": BYTES, "uint16": WORDS, "float": SIGNED}
    if usual.get(kind_of(array)) == limits:
        return ()
    black, white = limits
    return (
        f"{name}: {array.dtype} values are read with {black:g} as black and {white:g} as white",
    )


def layout_note(
    name: str, sizes: Sequence[int], layout: str, *, several: bool = False
) -> tuple[str, ...]:
    """A sentence about the axes, unless they can hardly be others."""
    if layout == "NC" and sizes[1] <= 3:
        return ()
    if layout == "NHW" and (several or sizes[0] == 1 or sizes[0] > 16):
        turned = sizes[1] != sizes[2] and _is_picture(*sizes[:2])  # as (H, W, N)
        if not turned:
            return ()
    return (f"{name}: axes are read as {_meaning(sizes, layout)}",)


def standardised(
    name: str, data: Tensor, wanted: bool
) -> tuple[Tensor, dict[str, Any], tuple[str, ...]]:
    """Points (N, C) or signals (N, C, L), what is stored with the weights, and notes.

    If `wanted`, each column gets the mean 0 and the standard deviation 1; a constant column gets the
    mean 0. Else a note says where columns need it.
    """
    axes = [axis for axis in range(data.ndim) if axis != 1]
    exact = data.double()
    std, mean = torch.std_mean(exact, axes, correction=0, keepdim=True)
    if wanted:
        std = torch.where(std > 0, std, 1.0)
        about = {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}
        note = f"{name}: columns have the mean 0 and the standard deviation 1; their own are stored with the weights"
        return ((exact - mean) / std).float(), about, (note,)
    if not std.isfinite().all() or (std.max() <= 4 and std.min() >= 0.25 and mean.abs().max() <= 4):
        return data, {}, ()
    note = (
        f"{name}: columns have standard deviations of {std.min():.3g} to {std.max():.3g} and means of "
        f"{mean.min():.3g} to {mean.max():.3g}, but noise has 1 and 0: set data.standardise"
    )
    return data, {}, (note,)


def class_labels(
    name: str, labels: Any, count: int
) -> tuple[Tensor | None, int, tuple[str, ...], tuple[str, ...]]:
    """The classes of `count` samples, (count,) int64; their number and names, and notes.

    `labels` are whole numbers of any type, one for each sample; or words; or rows with a single 1
    (one-hot). Without labels the result is None and 0. Raises ValueError for anything else.
    """
    if labels is None:
        return None, 0, (), ()
    array = _as_array(name, labels)
    if array.dtype.kind == "O":
        raise ValueError(
            f"{name}: labels must be whole numbers or words; got Python objects, which are not unpacked: save "
            "labels.astype(int) or labels.astype(str), or turn data.labels off"
        )
    if array.size == count:
        array = array.reshape(-1)
    if array.ndim == 0 or len(array) != count:
        raise ValueError(
            f"{name}: {count:,} samples need as many labels; got labels of shape {array.shape}"
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


def _words(name: str, array: np.ndarray) -> tuple[Tensor, int, tuple[str, ...], tuple[str, ...]]:
    """Labels that are words or bytes: numbers stand for themselves, words for classes by the alphabet."""
    try:
        words = [w.decode() if isinstance(w, bytes) else w for w in array.tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: labels that are bytes must be UTF-8 ({error})") from error
    if all(word.isdecimal() for word in words):
        numbers = [int(word) for word in words]
        classes = count_classes(name, numbers)
        return torch.tensor(numbers), classes, (), ()
    known = sorted(set(words))
    number = {word: index for index, word in enumerate(known)}
    note = f"{name}: {len(known)} words in the labels are the classes, in the order of the alphabet"
    return torch.tensor([number[word] for word in words]), len(known), tuple(known), (note,)
