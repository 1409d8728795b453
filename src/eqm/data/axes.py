"""Which axis of an array is which: pictures, rows, columns, channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eqm.naming import counted, either


def told_layout(name: str, sizes: Sequence[int], layout: str) -> str:
    """The `layout` that a user told, in capitals. Raises ValueError where it has not all axes of `sizes`."""
    if layout and len(layout) != len(sizes):
        raise ValueError(
            f"{name}: data.layout {layout.upper()} names {len(layout)} axes, but the array has the shape "
            f"{tuple(sizes)}: name each of its axes"
        )
    return layout.upper()


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
    if not 2 <= len(sizes) <= 5:
        raise ValueError(
            f"{name}: an array must have 2 to 5 axes: points (N, C), signals (N, C, L), pictures (N, H, W), "
            f"(N, H, W, C) or (N, C, H, W), or videos (N, C, T, H, W); got shape {sizes}: train on others from "
            "Python"
        )
    found, fitting = _FINDERS[len(sizes)](array, labels, several)
    if shape:  # a model of pictures was given
        letters = [layout for layout in fitting if of_pictures(layout)]
        same = [layout for layout in letters if picture_shape(sizes, layout) == tuple(shape)]
        alike = [layout for layout in letters if picture_shape(sizes, layout)[0] == shape[0]]
        for suited in (same, alike, letters):
            if found in suited:
                return found
            if len({_arrangement(sizes, layout) for layout in suited}) == 1:
                return suited[0]
    if not found:
        likely = [x for x in fitting if not of_pictures(x) or _is_likely(*picture_shape(sizes, x))]
        fitting = likely if len(likely) > 1 else fitting
        raise ValueError(
            f"{name}: an array of shape {sizes} can be {either([_meaning(sizes, x) for x in fitting])}: "
            "set data.layout to the order of its axes"
            + (", or save the pictures as PNG files" if len(sizes) < 5 else "")
        )
    return found


def suiting_layout(name: str, sizes: Sequence[int], shape: Sequence[int], trained: str = "") -> str:
    """The layout with which an array gives samples of `shape`, that of a model of points (D,), signals (C, L)
    or videos (C, T, H, W): the one of the `trained` data if it fits, else (N, *shape), or one sample.

    The axis of a single channel may be left out. Raises ValueError where nothing fits."""
    letters, wanted = {1: "C", 2: "CL", 4: "CTHW"}.get(len(shape), ""), tuple(shape)
    fitting = [trained.upper(), *(["N" + letters, letters] if letters else [])]
    if wanted[0] == 1 and len(letters) > 1:
        fitting += ["N" + letters[1:], letters[1:]]
    for layout in filter(None, fitting):
        if len(layout) == len(sizes):
            at = dict(zip(layout, sizes, strict=True))
            if tuple(at.get(letter, 1) for letter in letters) == wanted:
                return layout
    raise ValueError(
        f"{name} is an array of shape {tuple(sizes)}; the model takes samples of shape {wanted}: save them as "
        f"{('N', *wanted)}, or say the order of the axes by --layout".replace("'", "")
    )


def of_pictures(layout: str) -> bool:
    """Whether a layout is that of pictures: with height and width, and without time."""
    return "H" in layout and "T" not in layout


def _meaning(sizes: Sequence[int], layout: str) -> str:
    """A layout, and what it says about an array of these sizes."""
    at = dict(zip(layout, sizes, strict=True))
    count, channels = at.get("N", 1), counted(at.get("C", 1), "channel")
    if "L" in layout:
        return f"{layout} ({counted(count, 'signal')} of {at['L']:,} values and {channels})"
    if "T" in layout:
        frames = counted(at["T"], "frame")
        return f"{layout} ({counted(count, 'video')} of {frames} of {at['W']}x{at['H']} pixels and {channels})"
    if "H" not in layout:
        return f"{layout} ({counted(count, 'point')} of {counted(at['C'], 'column')})"
    return f"{layout} ({counted(count)} of {at['W']}x{at['H']} pixels and {channels})"


def picture_shape(sizes: Sequence[int], layout: str) -> tuple[int, int, int]:
    """Channels, height and width of the pictures of an array."""
    at = dict(zip(layout, sizes, strict=True))
    return at.get("C", 1), at["H"], at["W"]


def _arrangement(sizes: Sequence[int], layout: str) -> tuple[object, ...]:
    """Equal for layouts that give the same samples: axes of size 1 have no place."""
    order = [letter for letter, size in zip(layout, sizes, strict=True) if size > 1]
    return (picture_shape(sizes, layout), *order) if of_pictures(layout) else (layout,)


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


def _of_five(array: np.ndarray, labels: int | None, several: bool) -> tuple[str, list[str]]:
    """Channels are an axis of 1, 3 or 4 where the last two others can well be height and width."""
    sizes, fitting = array.shape, []
    for layout in ("NCTHW", "NTHWC", "NTCHW"):
        at = dict(zip(layout, sizes, strict=True))
        if at["C"] in (1, 3, 4) and _is_picture(at["H"], at["W"]) and at["C"] != at["T"]:
            fitting.append(layout)
    every = ["NCTHW", "NTHWC", "NTCHW"]
    return (fitting[0], fitting) if len(fitting) == 1 else ("", fitting or every)


_Finder = Callable[[np.ndarray, int | None, bool], tuple[str, list[str]]]
"""The layout, or nothing where it is not certain, and those that are possible."""
_FINDERS: dict[int, _Finder] = {2: _of_two, 3: _of_three, 4: _of_four, 5: _of_five}


def _is_picture(height: int, width: int) -> bool:
    """Whether two axes can well be height and width."""
    small, large = sorted((height, width))
    return 1 < small == large or (small >= 5 and large <= 8 * small)


def _is_likely(channels: int, height: int, width: int) -> bool:
    """Whether three axes can well be those of pictures."""
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
    """The pictures (N, C, H, W), videos (N, C, T, H, W), signals (N, C, L) or points (N, C) of an array,
    without a copy."""
    order = "NCHW" if of_pictures(layout) else "NCTHW" if "T" in layout else "NC"
    order = "NCL" if "L" in layout else order
    found = array.transpose([layout.index(letter) for letter in order if letter in layout])
    missing = tuple(place for place, letter in enumerate(order) if letter not in layout)
    return np.expand_dims(found, missing)


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
