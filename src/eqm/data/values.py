"""The numbers of an array: which ones are refused, which value is black and which is white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqm.naming import either

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
    """Channels, height and width; other axes for other samples than pictures."""
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

    def limits(self, array: np.ndarray) -> tuple[float, ...]:
        """The range of the training data, if the array holds numbers of the same kind; else nothing."""
        return self.range if self.kind == kind_of(array) else ()


_HALF = 0.5 + 2**-8
"""The most of floats centred on 0 that may lie in -0.5..0.5, with which others prepare pictures."""


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
    array = as_array(name, values)
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


def as_array(name: str, values: Any) -> np.ndarray:
    """Values of any kind as an array, tensors too. Raises ValueError for rows of several lengths."""
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


def _listed(words: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def kind_of(array: np.ndarray) -> str:
    """The kind of numbers that share a range: bool, uint8, uint16, float, or int for other integers."""
    return {"f": "float", "b": "bool"}.get(array.dtype.kind) or (
        array.dtype.name if array.dtype.name in _DARK else "int"
    )


def find_range(name: str, array: np.ndarray, *, alone: bool = False) -> Range:
    """The values of black and white in pictures (N, ...).

    They follow from the type and the values of all pictures. `alone` says that the pictures may be
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
    advice = ", such as " * bool(fitting) + either([f"{a:.9g} {b:.9g}" for a, b in fitting][:4])
    raise ValueError(
        f"{name}: it is not certain which values of these {kind} are black and white; they lie in "
        f"{low:g}..{high:g}: set data.range to both{advice}, or rescale to bytes 0..255"
    )


def scaled(
    name: str, array: np.ndarray, limits: Sequence[float] = (), *, alone: bool = False
) -> tuple[Tensor, dict[str, Any], tuple[str, ...]]:
    """Pictures (N, ...), what is stored with the weights, and notes.

    They become bytes 0..255, or float32 from black -1 to white 1. `limits` are the values of black and
    white; without them they are found as `find_range` does, and a note says them unless they are the
    usual ones of the type. Raises ValueError for values outside, NaN and infinity.
    """
    kind, notes = kind_of(array), tuple[str, ...]()
    if limits:
        black, white = limits
    else:
        black, white = find_range(name, array, alone=alone)
        if {"uint8": BYTES, "uint16": WORDS, "float": SIGNED}.get(kind) != (black, white):
            notes = (
                f"{name}: {array.dtype} values are read with {black:g} as black and {white:g} as white",
            )
        elif (
            kind == "float"
            and not alone
            and 0 < (most := max(map(abs, extremes(name, array)))) <= _HALF
        ):
            notes = (
                f"{name}: the values reach no further than {most:g}, and are read with -1 as black and 1 as white: set "
                "data.range if others are",
            )
    about = {"values": {"kind": kind, "range": [black, white]}}
    return _scaled(name, array, (black, white)), about, notes


def _scaled(name: str, array: np.ndarray, limits: Range) -> Tensor:
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
            "set data.range to the values of black and white, or rescale them"
        )
    if limits == SIGNED:
        return torch.from_numpy(array.astype(np.float32, copy=False))
    out = torch.empty(array.shape)
    exact = np.float32 if array.dtype.itemsize <= 2 else np.float64
    for start in range(0, len(array), 1024):  # bounds the memory for float64
        part: Any = array[start : start + 1024].astype(exact)
        out[start : start + 1024] = torch.from_numpy((part - exact(black)) / exact(half) - exact(1))
    return out


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


def in_own_units(samples: Tensor, metadata: Mapping[str, Any]) -> Tensor:
    """Samples (N, ...) of a model with these metadata, as its training data were before they were
    standardised, or scaled to black and white.

    Raises ValueError for metadata that do not say it for samples of this shape."""
    data = metadata.get("data") or {}
    try:
        if "std" in data:
            shape = (1, -1, *[1] * (samples.ndim - 2))
            std, mean = (samples.new_tensor(data[name]).view(shape) for name in ("std", "mean"))
            return samples * std + mean
        if "values" in data:
            black, white = map(float, data["values"]["range"])
            return (samples + 1) / 2 * (white - black) + black
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the model's metadata do not say how its data were scaled ({error}): save it again"
        ) from error
    return samples


def in_model_units(
    name: str, samples: Tensor, about: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Tensor:
    """Samples (N, ...), whose source stores `about`, scaled as the training data of a model with these
    metadata were: the inverse of `in_own_units`.

    Raises ValueError for pixels far outside of black and white, and for metadata that do not fit."""
    data = metadata.get("data") or {}
    if "values" in data and "values" in about:
        return samples
    own = in_own_units(samples, {"data": about})
    blank = torch.zeros_like(own[:1], dtype=torch.float64)
    zero, one = (in_own_units(blank + value, metadata) for value in (0, 1))
    found = ((own.double() - zero) / (one - zero)).float()
    if "values" in data:
        black, white = data["values"]["range"]
        low, high = own.min().item(), own.max().item()
        small = 0 <= low <= high <= 1 < max(black, white) and high > 0
        if small or found.abs().max() > 2:
            raise ValueError(
                f"{name}: values lie in {low:g}..{high:g}, but the data of the model had black at {black:g} and "
                f"white at {white:g}: set --range to black and white of these values"
            )
    return found


def check_finite(name: str, data: Tensor) -> None:
    """Raises ValueError where a sample holds NaN or infinity."""
    parts = data.split(1024)  # the data may be larger than the memory
    finite = torch.cat([part.isfinite().flatten(1).all(1) for part in parts])
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"{name}: {len(bad)} of {len(finite)} samples hold NaN or infinity, "
            f"the first is number {bad[0]}: remove them"
        )
