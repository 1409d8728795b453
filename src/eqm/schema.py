"""The one reader of JSON from outside, and the one check of settings: types and ranges by schema.

A schema is a type: a dataclass, or what typing offers, with ranges such as `Annotated[int, Meta(ge=1)]`.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeGuard,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec
from msgspec import Meta as Meta

from eqm.reading import open_regular
from eqm.registry import did_you_mean

MOST_BYTES = 16 << 20
"""A JSON file with more bytes is refused."""
LARGEST = sys.float_info.max
"""The bound of a number that may be anything but infinite or NaN."""

Count = Annotated[int, Meta(ge=1, le=2**62)]
CountOrZero = Annotated[int, Meta(ge=0, le=2**62)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # msgspec takes bounds that fit into int64
Finite = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
"""From 0 to below 1."""
Ratio = Annotated[float, Meta(gt=0, le=1)]
"""Above 0, up to 1."""

_NAMES = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    NoneType: ("none", "none"),
}


def read_json(path: Path | str, kind: Any = Any, *, advice: str = "") -> Any:
    """The content of a JSON file, as an object of the type `kind`.

    Raises FileNotFoundError for a missing file. Raises ValueError, one sentence that names the file and
    ends with `advice`, for what is not a regular file, more than MOST_BYTES, and as `parse_json` does.
    """
    return parse_json(read_bytes(path, MOST_BYTES), kind, str(path), advice=advice)


def parse_json(content: bytes | str, kind: Any, source: str, *, advice: str = "") -> Any:
    """The value of a JSON text, as an object of the type `kind`; `source` names it in errors.

    A dataclass takes no keys but its fields. Raises ValueError for what is not JSON (NaN, infinite and
    endless numbers included), text that is not UTF-8, a key that comes twice in an object, deep nesting,
    and values of another type or out of range.

    >>> parse_json('{"draws": 0}', dict[str, Count], "a.json", advice="calibrate again")
    Traceback (most recent call last):
    ValueError: a.json: draws must be a whole number from 1 to 2^62; got 0: calibrate again
    """
    ending = advice and f": {advice}"
    try:
        data = content.encode() if isinstance(content, str) else content
        data = data.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
        value = msgspec.json.decode(data)
        json.loads(data, object_pairs_hook=_once)  # msgspec takes the last of equal keys
    except RecursionError:
        raise ValueError(f"{source} must be JSON; it is nested too deeply{ending}") from None
    except UnicodeEncodeError:
        raise ValueError(f"{source} must be JSON; it has half a surrogate pair{ending}") from None
    except (ValueError, msgspec.DecodeError) as error:
        reason = str(error).removeprefix("JSON is malformed: ").partition(" - at `")[0]
        raise ValueError(
            f"{source} must be JSON; {reason[:1].lower()}{reason[1:]}{ending}"
        ) from None
    return convert(value, kind, f"{source}: ", advice=advice)


def json_text(value: Any) -> str:
    """The value as JSON. A number that is not finite becomes a text, as JSON has no number for it.

    >>> print(json_text({"score": float("inf")}))
    {
      "score": "inf"
    }
    """

    def finite(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: finite(each) for key, each in part.items()}
        if isinstance(part, list | tuple):
            return [finite(each) for each in part]
        return str(part) if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(value), indent=2, allow_nan=False)


def convert(value: Any, kind: Any, source: str = "", *, name: str = "", advice: str = "") -> Any:
    """The value as an object of the type `kind`: lists become tuples, objects become dataclasses.

    Errors begin with `source`, then `name` of the value, and end with `advice`. Raises ValueError for
    another type, a value out of range, and an unknown or missing key.

    >>> convert([1, 2], tuple[int, ...])
    (1, 2)
    """
    ending = advice and f": {advice}"
    try:
        _refuse_unknown(value, kind, name and f"{name}.")
        return msgspec.convert(value, kind)
    except RecursionError:
        raise ValueError(f"{source}a value is nested too deeply{ending}") from None
    except msgspec.ValidationError as error:
        sentence = _sentence(error, value, kind, name)
    except ValueError as error:
        sentence = str(error)
    raise ValueError(f"{source}{sentence}{ending}")


def check_fields(settings: Any, *, prefix: str = "") -> None:
    """Returns nothing; checks each field of a dataclass against its annotation. Call it in `__post_init__`.

    A list becomes the tuple that the annotation asks for, and a number of numpy one of Python. `prefix`
    stands before the names in errors.
    Raises ValueError as `convert` does.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Settings:
    ...     draws: Count = 1
    ...     def __post_init__(self):
    ...         check_fields(self)
    >>> Settings(draws="x")
    Traceback (most recent call last):
    ValueError: draws must be a whole number from 1 to 2^62; got 'x'
    """
    kinds: Any = type(settings)
    hints = _hints(kinds)
    for field in fields(settings):
        value, kind = getattr(settings, field.name), hints[field.name]
        if (
            not is_typeddict(kind) and _is_settings(kind) and isinstance(value, kind)
        ):  # it has checked itself
            continue
        plain = _without_numpy(value)
        try:
            found = msgspec.convert(plain, kind)
        except TypeError:  # a type that JSON does not have
            continue
        except msgspec.ValidationError as error:
            sentence = _sentence(error, value, kind, field.name)
            raise ValueError(prefix + sentence) from None
        if found != value or plain is not value:
            object.__setattr__(settings, field.name, found)


def read_bytes(path: Path | str, most: int) -> bytes:
    """The bytes of a regular file. Raises ValueError for anything else, and for more than `most` bytes."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(
            f"{path} must have at most {most:,} bytes; it has more: check that it is the right file"
        )
    return content


def shown(value: object) -> str:
    """A value for an error: in one line, without control characters, and short."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {int(value.bit_length() * math.log10(2)) + 1} digits"
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def _without_numpy(value: Any) -> Any:
    """The value with numbers of Python in place of those of numpy."""
    if isinstance(value, tuple | list) and not all(type(each) in _NAMES for each in value):
        return type(value)(map(_without_numpy, value)) if type(value) in (tuple, list) else value
    if type(value) in _NAMES or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"it has the key {shown(key)} twice in one object")
        seen.add(key)


def _refuse_unknown(value: Any, kind: Any, path: str) -> None:
    """Raises ValueError for a key of an object that is no field of its dataclass."""
    for option in _options(kind):
        if _is_settings(option) and isinstance(value, dict):
            hints = _hints(option)
            for key in value:
                if key not in hints:
                    raise ValueError(
                        f"{path}{_plain(key)} is unknown{did_you_mean(key, hints)}: "
                        f"known are {', '.join(hints)}"
                    )
                _refuse_unknown(value[key], hints[key], f"{path}{key}.")
        elif parts := get_args(option):
            inner = value.values() if isinstance(value, dict) else value
            for each in inner if isinstance(value, dict | list) else ():
                _refuse_unknown(each, parts[-1] if isinstance(value, dict) else parts[0], path)


def _sentence(error: msgspec.ValidationError, value: Any, kind: Any, name: str = "") -> str:
    """What msgspec refused: the path of the key, what was expected and what came."""
    message, _, place = str(error).partition(" - at `$")
    path, hint = name, kind
    for key, number in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", place):
        hint = _inner(hint, key, number)
        if number == "...":  # some value of an object
            key = next(name for name in value if not _fits(value[name], hint))
        path += f".{_plain(key)}" if key else f"[{number}]"
        value = value[key] if key else value[int(number)]
    path = path.removeprefix(".")
    if isinstance(error.__cause__, ValueError):  # of a __post_init__
        return f"{path}.{error.__cause__}".removeprefix(".")
    if missing := re.search("missing required field `(.+)`", message):
        return f"{path}.{missing[1]} is missing".removeprefix(".")
    near = ""
    if isinstance(value, str):
        near = did_you_mean(value, [part for part in get_args(hint) if isinstance(part, str)])
    return f"{path or 'the content'} must be {_expected(hint)}; got {shown(value)}{near}"


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _inner(kind: Any, key: str, number: str) -> Any:
    """The type of a key or an entry of an object or list of the type `kind`."""
    for option in _options(kind):
        if _is_settings(option) and key:
            return _hints(option).get(key, Any)
        if number and (parts := get_args(option)):
            if number == "...":
                return parts[-1]
            own = [part for part in parts if part is not ...]
            return own[min(int(number), len(own) - 1)]
    return Any


def _expected(kind: Any) -> str:
    """The type in plain words, such as "a whole number of at least 1"."""
    words: dict[str, None] = {}
    for option in _options(kind):
        origin, parts = get_origin(option), get_args(option)
        if origin is Literal:
            words[f"one of {', '.join(map(str, parts))}"] = None
        elif origin in (tuple, list) and parts:
            bounded = origin is tuple and parts[-1] is not ...
            count = f"{len(parts)} " if bounded else _length(kind)
            inner = _options(parts[0])[0]
            plural = _NAMES.get(inner, ("", "lists" if get_args(inner) else "objects"))[1]
            limits = _range(parts[0])
            words[f"a list of {count}{plural}{limits and ', each'}{limits}"] = None
        elif _is_settings(option) or origin in (dict, Mapping):
            words["an object"] = None
        else:
            word = _NAMES.get(option, (f"a {getattr(option, '__name__', option)}",))[0]
            if option is str and get_origin(kind) is Annotated and (length := _length(kind)):
                word = f"a text of {length}characters"
            finite = any(meta.le == LARGEST for meta in ranges(kind))
            words["a finite number" if finite and option is float else word] = None
    none = " or none" if words.pop("none", words) is None else ""
    return " or ".join(words) + _range(kind) + none


def _range(kind: Any) -> str:
    """The range of a type in words that follow the type; empty if it has none."""
    for meta in ranges(kind):
        if (meta.ge, meta.gt, meta.le, meta.lt) == (None,) * 4:
            continue
        low = f"from {_words(meta.ge)}" if _bounded(meta.ge) else ""
        low = f"above {_words(meta.gt)}" if _bounded(meta.gt) else low
        high = f"to {_words(meta.le)}" if _bounded(meta.le) else ""
        high = f"to below {_words(meta.lt)}" if _bounded(meta.lt) else high
        if low and high:
            high = high if low[0] == "f" else f"and up {high}".replace("up to below", "below")
            return f" {low} {high}"
        if low or high:
            return " " + (low.replace("from", "of at least") or f"up {high}")
    return ""


def _length(kind: Any) -> str:
    """The length of a list in words that stand before its entries; empty if any length will do."""
    for meta in ranges(kind):
        if meta.max_length and meta.max_length == meta.min_length:
            return f"{meta.max_length:,} "
        if meta.max_length:
            return f"{meta.min_length or 0} to {meta.max_length:,} "
        if meta.min_length:
            return f"{meta.min_length} or more "
    return ""


def ranges(kind: Any) -> list[Meta]:
    """The ranges of a type, of all its options if it is a union."""
    if get_origin(kind) in (Union, UnionType):
        return [meta for option in get_args(kind) for meta in ranges(option)]
    if get_origin(kind) is not Annotated:
        return []
    own = [meta for meta in kind.__metadata__ if isinstance(meta, Meta)]
    return own + ranges(get_args(kind)[0])


def _bounded(bound: float | None) -> TypeGuard[float]:
    return bound is not None and abs(bound) < LARGEST


def _words(bound: float) -> str:
    """A bound for people: 2^62 - 1 for a long number."""
    if bound < 0:
        return f"-{_words(-bound)}"
    if bound < 2**53:
        return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
    power = round(math.log2(bound))
    return f"2^{power}" + f" - {2**power - int(bound)}" * (bound != 2**power)


def _options(kind: Any) -> tuple[Any, ...]:
    """The types of a union without their ranges; the type alone if it is no union."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(part for each in get_args(kind) for part in _options(each))
    return (kind,)


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and (is_dataclass(kind) or is_typeddict(kind))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The annotations of the fields of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    return (
        hints if is_typeddict(kind) else {field.name: hints[field.name] for field in fields(kind)}
    )


def _plain(text: str) -> str:
    """A name from a file as it is, or quoted if it has control characters or is long."""
    return text if text.isprintable() and len(text) <= 60 else shown(text)
