"""Checks of settings, tensors and fields from callers; each raises ValueError. Imports torch when used."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

MOST_SAMPLES = 10**7
"""The most samples of one call: more would not fit into memory."""
LOG = logging.getLogger(__name__)
ENOUGH = 8
"""Of so many images, one has a pixel that is darker than middle grey."""


def check_positive(**values: float) -> None:
    """Each value must be positive and finite."""
    _check_numbers("be a positive number", lambda value: 0 < value < math.inf, values)


def check_fraction(end: float = 1, /, **values: float) -> None:
    """Each value must lie in [0, end)."""
    _check_numbers(f"lie in [0, {end:g})", lambda value: 0 <= value < end, values)


def check_ratio(**values: float) -> None:
    """Each value must lie in (0, 1]."""
    _check_numbers("lie in (0, 1]", lambda value: 0 < value <= 1, values)


def check_range(low: float, high: float, /, **values: float) -> None:
    """Each value must be a finite number in [low, high]."""
    bounds = f"lie in {low:g}..{high:g}" if math.isfinite(high - low) else "be finite"
    if math.isfinite(low) and not math.isfinite(high):
        bounds = f"be finite and {low:g} or more"
    _check_numbers(bounds, lambda value: low <= value <= high and math.isfinite(value), values)


def _check_numbers(rule: str, holds: Callable[[float], bool], values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if not holds(_number(name, value)):
            raise ValueError(f"{name} must {rule}; got {value}")


def check_count(unit: str = "", /, **values: int) -> None:
    """Each value must be a whole number, at least 1; `unit` is for the message."""
    for name, value in values.items():
        if not _whole(name, value) >= 1:
            raise ValueError(f"{name} must be at least 1{unit and ' ' + unit}; got {value}")
        if value > 2**62:
            raise ValueError(f"{name} must be at most 2^62; got {value}")


def check_seed(count: int = 1, /, **values: int) -> None:
    """Each value must be a whole number that torch takes as a seed, as must the next `count` - 1."""
    for name, value in values.items():
        if not -(2**63) <= _whole(name, value) <= 2**63 - int(count):
            most = "2^63)" if count == 1 else f"2^63 - {count}], for {count:,} seeds in a row"
            raise ValueError(f"{name} must lie in [-2^63, {most}; got {value}")


def seeded(seed: int) -> Generator:
    """A generator on the CPU with this seed. Raises ValueError as `check_seed` does."""
    import torch

    check_seed(seed=seed)
    return torch.Generator().manual_seed(int(seed))


def check_decay(decay: object) -> None:
    """A decay must be a function from gamma (B,) to a tensor (B,)."""
    import torch

    check_callable(decay=decay)
    found = decay(torch.tensor([0.0, 0.5]))  # type: ignore[operator]
    if not isinstance(found, torch.Tensor) or found.shape != (2,):
        raise ValueError(
            f"decay must return a tensor (B,) for gamma (B,); got {kind_of(found)} for 2 gammas"
        )


def check_choice(choices: Sequence[object], /, **values: object) -> None:
    """Each value must be one of the choices."""
    for name, value in values.items():
        if not isinstance(value, str | int) or value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}")


def check_shape(shape: object) -> None:
    """The shape of a sample must be one or more whole numbers from 1."""
    if isinstance(shape, str) or not isinstance(shape, Sequence) or not shape:
        raise ValueError(f"shape must be the sides of a sample, such as (3, 32, 32); got {shape!r}")
    check_count(**{f"each side of shape {tuple(shape)}": side for side in shape})
    if math.prod(map(int, shape)) > 2**32:
        raise ValueError(f"shape must have at most 2^32 values; got {tuple(shape)}")


def check_callable(**values: object) -> None:
    """Each value must be a function, or an object that can be called."""
    for name, value in values.items():
        if not callable(value) or isinstance(value, type):
            raise ValueError(f"{name} must be a function or a module; got {kind_of(value)}")


def check_path(**values: object) -> None:
    """Each value must be text or a path."""
    for name, value in values.items():
        if not isinstance(value, str | PathLike):
            raise ValueError(f"{name} must be text or a path; got {kind_of(value)}")


def check_field(field: object) -> None:
    """A field must be a function or an object `field(x, labels)`."""
    if not callable(field) or isinstance(field, type):
        hint = ": load it with eqm.from_pretrained" if isinstance(field, str) else ""
        raise ValueError(
            f"a field must be a function or a module field(x, labels); got {kind_of(field)}{hint}"
        )


def check_kind(kind: type, /, **values: object) -> None:
    """Each value must be of this class."""
    for name, value in values.items():
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be a {kind.__name__}; got {kind_of(value)}")


def check_row(**values: object) -> None:
    """Each value must have an order, as a tensor or a list has: no set, text or single value."""
    for name, value in values.items():
        unordered = isinstance(value, str | bytes | Set | Mapping) or callable(value)
        single = not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0
        if unordered or single or getattr(value, "is_meta", False):
            raise ValueError(f"{name} must be a tensor or a list; got {kind_of(value)}")


def check_descent(rule: object, stop: object = None) -> None:
    """A rule, and a stop or None."""
    check_part("rule", rule, "init", "step")
    if stop is not None:
        check_part("stop", stop, "init", "__call__")


def check_part(kind: str, part: object, *methods: str) -> None:
    """A rule or a stop must be an object with `methods`."""
    if isinstance(part, type) or not all(callable(getattr(part, each, None)) for each in methods):
        made = f": call it, {part.__name__}(...)" if isinstance(part, type) else ""
        raise ValueError(
            f"a {kind} must be an object with {' and '.join(methods)}; got {kind_of(part)}{made}"
        )


def check_samples(axes: str = "(B, ...)", /, *, least: int = 2, **values: object) -> None:
    """Each value must be a floating-point tensor with data and at least `least` axes."""
    import torch

    for name, value in values.items():
        if (
            not isinstance(value, torch.Tensor)
            or not value.is_floating_point()
            or value.ndim < least
            or value.layout is not torch.strided
            or value.is_meta
            or not math.prod(value.shape[1:])
        ):
            raise ValueError(f"{name} must be a floating-point tensor {axes}; got {kind_of(value)}")


def check_alike(*, least: int = 2, **values: Any) -> None:
    """Two floating-point tensors must have one shape and device."""
    (first, one), (second, two) = values.items()
    check_samples(least=least, **values)
    _check_same(f"{second} must have", first, one, two)


def _check_same(rule: str, name: str, one: Tensor, two: Tensor) -> None:
    if one.shape != two.shape:
        raise ValueError(f"{rule} the shape of {name}, {tuple(one.shape)}; got {tuple(two.shape)}")
    if one.device != two.device:
        raise ValueError(f"{rule} the device of {name}, {one.device}; got {two.device}")


def check_batch(labels: object, axes: str = "(B, ...)", /, **samples: Any) -> None:
    """Samples x (B, ...), and labels: None, or a tensor of whole numbers on the device of x, (B,), or (B, L)
    for sentences."""
    import torch

    check_samples(axes, **samples)
    (x,) = samples.values()
    if labels is None:
        return
    if not isinstance(labels, torch.Tensor) or labels.ndim > 2 or labels.shape[:1] != x.shape[:1]:
        raise ValueError(f"labels must be a tensor of shape ({len(x)},); got {kind_of(labels)}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be whole numbers; got {labels.dtype}")
    if labels.device != x.device:
        raise ValueError(f"labels must be on the device of x, {x.device}; got {labels.device}")


def check_axes(field: object, x: Tensor) -> None:
    """Samples x (B, ...) must have as many axes as the shape that the field says, if it does."""
    shape = getattr(getattr(field, "config", field), "shape", None)
    if isinstance(shape, tuple | list) and x.ndim != 1 + len(shape):
        raise ValueError(
            f"x must have shape {('B', *shape)}, that of the field; got {tuple(x.shape)}"
        )


def label_bounds(labels: Tensor | None) -> tuple[int, ...]:
    """The least and the greatest label, or nothing where values are not at hand without waiting.

    An accelerator would wait for them; compiled graphs and vmap cannot read them.
    """
    import torch

    if labels is None or labels.device.type != "cpu" or not labels.numel():
        return ()
    functorch = torch._C._functorch
    traced = torch.compiler.is_compiling() or functorch.is_functorch_wrapped_tensor(labels)
    return () if traced else tuple(int(bound) for bound in labels.aminmax())


def check_label_range(field: object, *labels: int) -> None:
    """Labels must be classes of the field or its null label, if it says `num_classes`."""
    classes = getattr(getattr(field, "config", field), "num_classes", None)
    if labels and classes == 0:
        raise ValueError("this model was trained without classes: leave labels out")
    null = classes if isinstance(classes, int) else math.inf
    if labels and not 0 <= min(labels) <= max(labels) <= null:
        rule = f"lie in 0..{null - 1}, or be {null} for none" if null < math.inf else "be 0 or more"
        raise ValueError(f"labels must {rule}; got {min(labels)}..{max(labels)}")


def check_takes_sentences(field: object, labels: object) -> None:
    """Tokens are for a field that takes sentences, or that does not say its number of classes."""
    config = getattr(field, "config", field)
    takes = getattr(getattr(config, "text", None), "encoder", "")
    if getattr(config, "num_classes", None) is not None and not takes:
        raise ValueError(
            f"a label must be one whole number, as this model takes no sentences; got {kind_of(labels)}"
        )


def check_label(field: object, /, **values: int) -> None:
    """Each value must be the number of a class of the field, or its null label."""
    check_field(field)
    for name, value in values.items():
        check_range(0, 2**62, **{name: _whole(name, value)})
        check_label_range(field, int(value))


def check_step(field: object, labels: Any, **samples: Any) -> None:
    """What calls a field at every step must give a field, samples (B, ...) and labels (B,) that it has.

    The values of labels are looked at only where `label_bounds` gives some.
    """
    check_field(field)
    check_batch(labels, **samples)
    if getattr(labels, "ndim", 1) == 2:
        check_takes_sentences(field, labels)
    check_axes(field, *samples.values())
    check_label_range(field, *label_bounds(labels))


def check_call(field: object, x: Any, labels: Any) -> None:
    """What calls a field must give a field, samples x (B, ...) and labels (B,) that it has.

    For code that runs once a call, not at every step: it waits for the values of the labels."""
    check_step(field, labels, x=x)
    weight = next(iter(getattr(field, "parameters", tuple)()), x)
    if weight.device != x.device:
        raise ValueError(f"x must be on the device of the field, {weight.device}; got {x.device}")
    if labels is not None and labels.device.type != "cpu":
        check_label_range(field, *label_bounds(labels.cpu()))


def check_gamma(gamma: Any, data: Tensor) -> None:
    """Gamma must be a tensor (B,), one value for each sample of data (B, ...)."""
    if not hasattr(gamma, "numel"):
        raise ValueError(
            f"gamma must be a tensor of shape ({len(data)},); "
            f"got {kind_of(gamma)}: pass torch.full(({len(data)},), gamma)"
        )
    if gamma.shape != data.shape[:1]:
        hint = ": pass gamma.flatten()" if gamma.numel() == len(data) else ""
        raise ValueError(f"gamma must have shape ({len(data)},); got {tuple(gamma.shape)}{hint}")


def check_gradient(gradient: object, x: Tensor) -> None:
    """A gradient must be a floating-point tensor with the shape and the device of x."""
    import torch

    if not isinstance(gradient, torch.Tensor) or not gradient.is_floating_point():
        kind = getattr(gradient, "dtype", type(gradient).__name__)
        raise ValueError(f"a field must return a floating-point tensor, the gradient; got {kind}")
    if gradient.layout is not torch.strided:
        raise ValueError(
            "a field must return a dense tensor; got a sparse one: return gradient.to_dense()"
        )
    _check_same("a field must return", "its input", x, gradient)


def check_step_size(step_size: object) -> None:
    """A step size must be a positive number, or a schedule, a function of the number of steps."""
    if isinstance(step_size, type) or not callable(step_size):
        rule = "be a positive number or a schedule"
        _check_numbers(rule, lambda value: 0 < value < math.inf, {"step_size": step_size})


def as_levels(gamma: Any) -> Tensor:
    """Gamma as a tensor; a tensor of floating-point numbers as it is."""
    plain = hasattr(gamma, "is_floating_point") and not (gamma.is_meta or gamma.is_sparse)
    if plain and gamma.is_floating_point():
        return gamma
    single = isinstance(gamma, int | float)
    levels: Tensor = as_floats(gamma=[gamma] if single else gamma)
    return levels[0] if single else levels


def as_floats(axes: str = "(N, ...)", ndim: int | None = None, /, **values: Any) -> Any:
    """The values as floating-point tensors: tensors, arrays, or lists of numbers, in the order given.

    One value is returned alone, several as a tuple, on the device of the first. Whole numbers become
    float32. `ndim` is the number of axes, by default at least 1.
    """
    import torch

    found = []
    for name, value in values.items():
        try:
            tensor = value if isinstance(value, torch.Tensor) else _from_array(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            tensor = None
        if (
            tensor is None
            or tensor.is_complex()
            or tensor.layout is not torch.strided
            or tensor.is_meta
            or (tensor.ndim < 1 if ndim is None else tensor.ndim != ndim)
        ):
            got = kind_of(value if tensor is None else tensor)
            raise ValueError(f"{name} must be numbers of shape {axes}; got {got}")
        tensor = tensor.detach()
        found.append(tensor if tensor.is_floating_point() else tensor.float())
    return found[0] if len(found) == 1 else tuple(each.to(found[0].device) for each in found)


def warn_of_range(images: Tensor) -> None:
    """Warns of images (B, C, H, W) that seem to lie in 0..1, as tasks take -1..1 and cannot know."""
    if images.ndim != 4 or not images.numel():
        return
    low, high = images.min().item(), images.max().item()
    if 0 <= low < high <= 1 and (low == 0 or len(images) >= ENOUGH):
        LOG.warning(
            "images lie in %g..%g, but black is -1 here: if 0 is black in yours, pass 2 * images - 1",
            *(low, high),
        )


def kind_of(value: object) -> str:
    """What a value is, in few words: dtype and shape of a tensor or array, the type of other things."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and not isinstance(value, type):
        meta = " without data" if getattr(value, "is_meta", False) else ""
        name = "" if str(dtype).startswith("torch.") else f"{type(value).__name__} "
        return f"{name}{dtype} {tuple(shape)}{meta}"
    if value is None or isinstance(value, str | int | float):
        return repr(value)[:60]
    return f"a {type(value).__name__}" if not isinstance(value, type) else value.__name__


def _from_array(value: Any) -> Tensor:
    import torch

    if hasattr(value, "__array__") and not isinstance(value, list | tuple):
        array = value.__array__()
        # negative strides, foreign byte order and read-only memory are no concern of the caller
        return torch.tensor(array.astype(array.dtype.newbyteorder("="), order="C"))
    if isinstance(value, list | tuple):
        if value and any(hasattr(row, "shape") for row in value):
            return torch.stack(
                [row if isinstance(row, torch.Tensor) else _from_array(row) for row in value]
            )
        return torch.tensor(value, dtype=torch.float64 if _deep_floats(value) else None)
    raise TypeError


def _deep_floats(value: Any) -> bool:
    """Whether nested lists hold Python's floats, which have 64 bits."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, float)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number; got {kind_of(value)}")
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number; got {kind_of(value)}")
    return int(value)
