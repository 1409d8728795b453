"""The registry: names for rules, stops, decays, networks and other parts; imports no torch.

A registered part works by its name in Python, in configurations, on the command line and in saved models.
Decays, densities of gamma and couplings may also be any function that can be imported, by the name
`package.module:function`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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
    "gamma": "eqm.gammas",
    "coupling": "eqm.couplings",
    "network": "eqm.models",
    "source": "eqm.data.builtin",
    "score": "eqm.tasks.scores",
    "metric": "eqm.evaluation.metrics",
    "features": "eqm.features",
    "encoder": "eqm.encoders",
    "text-encoder": "eqm.text",
    "command": "eqm.cli",
}
"""The kinds of parts, and the module or package that registers the built-in ones."""
IMPORTABLE = ("decay", "gamma", "coupling", "features")
"""The kinds whose parts may be given as MODULE:NAME."""
_REGISTERED: dict[str, dict[str, Any]] = {kind: {} for kind in HOMES}
_NAMED: set[str] = set()
"""Modules whose names the user gave, in Python or on the command line."""


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
    """The part of this kind that is registered under `name`, or named MODULE:NAME.

    This imports no module, because `name` may come from the file of a model. It finds MODULE:NAME in a
    module that the user named (`import_part`, `load_plugin`), or that the program has imported, but not in
    the standard library, torch or eqm.

    Raises UnknownNameError, a ValueError, if there is none.
    """
    _load_home(kind)
    if ":" in name and kind in IMPORTABLE:
        return _imported(kind, name)
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
    if kind in IMPORTABLE and getattr(part, "__module__", "__main__") != "__main__":
        name = f"{part.__module__}:{getattr(part, '__qualname__', '')}"
        with suppress(UnknownNameError):
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


def import_part(kind: str, name: str) -> None:
    """Returns nothing; imports the module of the part `name`, MODULE:NAME; other names need no import.

    The module may be installed, or a file in the current folder. It runs code: call it only with a name
    from the user, never with one from the file of a model.

    Raises ValueError if the module does not exist or fails, and if it has no such function or class.

    >>> import_part("decay", "statistics:mean")
    >>> lookup("decay", "statistics:mean").__name__
    'mean'
    """
    _check_kind(kind)
    module, colon, _ = name.partition(":")
    if not colon or kind not in IMPORTABLE:
        return
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", name):
        raise UnknownNameError(
            f"a {kind} that is imported must be named package.module:function; got {name!r}"
        )
    if _module(module) is None:
        try:
            _import(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise _failed(f"the {kind} {name!r}", error) from error
            raise UnknownNameError(
                f"the {kind} {name!r} must be in a module that Python can import; there is no "
                f"{error.name!r}: install it, or go to its folder"
            ) from None
        except Exception as error:
            raise _failed(f"the {kind} {name!r}", error) from error
    _NAMED.add(module)
    _imported(kind, name)


def load_plugin(where: str) -> None:
    """Returns nothing; runs a Python file or imports a module, which registers parts.

    Raises ValueError if the file or module does not exist, and if it raises an error.
    """
    path = Path(where)
    missing = f"--import takes a Python file or an installed module; there is no {where!r}"
    if path.suffix != ".py":
        try:
            _import(where)
        except ModuleNotFoundError as error:
            if error.name not in (where, where.split(".")[0]):
                raise _failed(f"--import {where}", error) from error
            raise ValueError(missing) from None
        except Exception as error:
            raise _failed(f"--import {where}", error) from error
        _NAMED.add(where)
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
        raise _failed(f"--import {where}", error) from error
    _NAMED.add(path.stem)


def _import(module: str) -> None:
    """Returns nothing; imports a module that is installed, or a file in the current folder."""
    before = list(sys.path)
    sys.path.append(os.getcwd())  # noqa: PTH109 - last, so that it replaces no installed module
    try:
        importlib.import_module(module)
    finally:
        sys.path[:] = before


def _imported(kind: str, name: str) -> Any:
    """The part MODULE:NAME of a module that is imported, if it may be used."""
    module, _, path = name.partition(":")
    part = _module(module)
    if part is None or not (module in _NAMED or _is_of_user(module)):
        raise UnknownNameError(
            f"the {kind} {name!r} is code that is not imported: if you trust it, add --import {module}, or "
            "import that module in Python"
        )
    for step in path.split("."):
        part = getattr(part, step, None)
    if not callable(part):
        raise UnknownNameError(
            f"the module {module} has no function or class {path!r}: check its name"
        )
    return part


def _module(name: str) -> Any:
    """The imported module of this name, also one that `load_plugin` loaded from a file."""
    return sys.modules.get(name) or sys.modules.get(f"eqm_plugin_{name}")


def _is_of_user(module: str) -> bool:
    """Whether a module that is imported was not imported by eqm or torch for themselves."""
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in ("eqm", "torch", "numpy")


def _failed(where: str, error: Exception) -> ValueError:
    return ValueError(
        f"{where} failed, with {type(error).__name__} ({error}): mend the code; EQM_TRACEBACK=1 shows where"
    )


def _settings(part: Any) -> dict[str, Parameter]:
    """The settings of a part: the arguments of a class, the keyword-only arguments of a function."""
    positional = isinstance(part, type)
    try:
        parameters = signature(part).parameters
    except ValueError:  # a function of C
        return {}
    return {
        name: parameter
        for name, parameter in parameters.items()
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
