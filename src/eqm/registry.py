"""The registry: names for rules, stops, decays, networks and other parts; imports no torch.

A registered part works by its name in Python, in configurations, on the command line and in saved models.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from inspect import Parameter, isroutine, signature
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

HOMES = {
    "rule": "eqm.descent.rules",
    "stop": "eqm.descent.stopping",
    "decay": "eqm.corruption",
    "network": "eqm.models",
    "source": "eqm.data.builtin",
    "score": "eqm.tasks.scores",
    "metric": "eqm.evaluation.metrics",
    "features": "eqm.features",
    "encoder": "eqm.encoders",
    "command": "eqm.cli",
}
"""The kinds of parts, and the module or package that registers the built-in ones."""
_REGISTERED: dict[str, dict[str, Any]] = {kind: {} for kind in HOMES}


class UnknownNameError(ValueError):
    """No part is registered under this name."""


def register(kind: str, name: str) -> Callable[[T], T]:
    """A decorator that registers a class or function of a `kind` (a key of `HOMES`) under `name`.

    An installed package can also register a part by an entry point of the group `eqm.KIND`, which has
    the part's name and points to the part.

    Raises ValueError for an unknown kind, a name that is taken, and a name with other characters than
    lower-case letters, digits and single hyphens.

    >>> from eqm.registry import lookup, register
    >>> @register("decay", "quadratic")
    ... class QuadraticDecay:
    ...     def __call__(self, gamma):
    ...         return (1 - gamma) ** 2
    >>> lookup("decay", "quadratic")
    <class 'eqm.registry.QuadraticDecay'>
    """
    _check_kind(kind)
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(
            f"a {kind} must have a name of lower-case letters, digits and single hyphens, such as "
            f"my-{kind}; got {name!r}"
        )

    def add(part: T) -> T:
        known = _REGISTERED[kind].get(name)
        if known is not None and _origin(known) != _origin(part):  # a file may be loaded again
            raise ValueError(
                f"the {kind} {name!r} is registered already, as {_path(known)}: choose another name"
            )
        _REGISTERED[kind][name] = part
        return part

    return add


def lookup(kind: str, name: str) -> Any:
    """The part of this kind that is registered under `name`.

    Raises UnknownNameError, a ValueError, if there is none.
    """
    _load_home(kind)
    found = _REGISTERED[kind].get(name)
    if found is None and (entry := _entries(kind).get(name)):
        found = _REGISTERED[kind][name] = entry.load()
    if found is not None:
        return found
    known = names(kind)
    raise UnknownNameError(
        f"the {kind} must be one of {', '.join(known)}; got {name!r}{did_you_mean(name, known)}: "
        "register your own first, with eqm.register or --import FILE"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name nearest to a wrong one as a question in brackets; empty if none is near."""
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def names(kind: str) -> list[str]:
    """The names registered for this kind, those of entry points included, sorted."""
    _load_home(kind)
    return sorted({*_REGISTERED[kind], *_entries(kind)})


def name_of(kind: str, part: object) -> str:
    """The name of a part of this kind; the first one if it has several.

    Raises ValueError if it is not registered.
    """
    names(kind)  # registers the built-in parts
    for name in (*_REGISTERED[kind], *_entries(kind)):
        if lookup(kind, name) is part:
            return name
    raise ValueError(
        f'the {kind} {_path(part)} is not registered: put @eqm.register("{kind}", "my-name") above it'
    )


def make(
    kind: str,
    name: str,
    settings: Mapping[str, Any],
    options: Iterable[tuple[str, Any]] = (),
) -> Any:
    """The part of this kind registered under `name`, made with its settings.

    The settings of a class are its arguments, those of a function its keyword-only arguments. Names in
    `settings` that the part does not have are ignored. `options` are further settings, which it must
    have.

    Raises ValueError for unknown names and options, missing settings, and values that the part refuses.

    >>> make("decay", "linear", {"scale": 2.0, "start": 0.8})
    LinearDecay(scale=2.0)
    """
    part, asked = lookup(kind, name), dict(options)
    taken = _settings(part)
    if unknown := sorted(set(asked) - set(taken)):
        known = ", ".join(taken) or "no options"
        raise ValueError(f"the {kind} {name!r} takes {known}; got the option {unknown[0]!r}")
    chosen = {key: value for key, value in settings.items() if key in taken} | asked
    for key, parameter in taken.items():
        if key not in chosen and parameter.default is Parameter.empty:
            raise ValueError(f"the {kind} {name!r} needs {key}: pass it as an option")
        if key in chosen and parameter.annotation in (int, "int"):
            chosen[key] = _whole(key, chosen[key])
    if isinstance(part, type):
        return part(**chosen)
    return partial(part, **chosen) if chosen else part


def settings_of(kind: str, made: Any) -> tuple[str, dict[str, Any]]:
    """The name and the settings from which `make` makes this part again.

    Raises ValueError if the part is not registered, or does not store a setting as an attribute.

    >>> from eqm import LinearDecay
    >>> settings_of("decay", LinearDecay(2.0))
    ('linear', {'scale': 2.0})
    """
    if isinstance(made, partial):
        return name_of(kind, made.func), dict(made.keywords)
    if isroutine(made):
        return name_of(kind, made), {}
    name = name_of(kind, type(made))
    try:
        return name, {key: getattr(made, key) for key in _settings(type(made))}
    except AttributeError as error:
        raise ValueError(
            f"the {kind} {name!r} must store its setting {error.name!r} as an attribute of that name: "
            "make it a dataclass"
        ) from None


def load_plugin(where: str) -> None:
    """Returns nothing; runs a Python file or imports a module, which registers parts.

    Raises ValueError if the file or module does not exist, and if it raises an error.
    """
    path = Path(where)
    missing = f"--import takes a Python file or an installed module; there is no {where!r}"
    if path.suffix != ".py":
        try:
            importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name not in (where, where.split(".")[0]):
                raise _failed(where, error) from error
            raise ValueError(missing) from None
        except Exception as error:
            raise _failed(where, error) from error
        return
    if not path.is_file():
        raise ValueError(missing)
    name = f"eqm_plugin_{path.stem}"  # so that random.py does not replace the module random
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # as the suffix is .py
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(where, error) from error


def _failed(where: str, error: Exception) -> ValueError:
    return ValueError(
        f"--import {where} failed, with {type(error).__name__} ({error}): mend the code; EQM_TRACEBACK=1 shows where"
    )


def _settings(part: Any) -> dict[str, Parameter]:
    """The settings of a part: the arguments of a class, the keyword-only arguments of a function."""
    positional = isinstance(part, type)
    return {
        name: parameter
        for name, parameter in signature(part).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
        or (positional and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD)
    }


def _whole(name: str, value: Any) -> int:
    """The number as an int; options from the command line are floats."""
    if not isinstance(value, int | float) or not float(value).is_integer():
        raise ValueError(f"{name} must be a whole number; got {value}")
    return int(value)


def _check_kind(kind: str) -> None:
    if kind not in HOMES:
        raise ValueError(f"the kind must be one of {', '.join(HOMES)}; got {kind!r}")


@cache
def _load_home(kind: str) -> None:
    """Imports the home of a kind, every module of a package, so that a new part is one new file."""
    _check_kind(kind)
    module = importlib.import_module(HOMES[kind])
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        importlib.import_module(f"{module.__name__}.{found.name}")


@cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"eqm.{kind}")}


def _origin(part: object) -> tuple[str, str]:
    """The file and the name of a part: `import mine` and `--import mine.py` make two modules of one file."""
    module, name = getattr(part, "__module__", "?"), getattr(part, "__qualname__", str(part))
    return getattr(sys.modules.get(module), "__file__", None) or module, name


def _path(part: object) -> str:
    return f"{getattr(part, '__module__', '?')}.{getattr(part, '__qualname__', part)}"
