"""Which command `eqm detect fit | run | eval` stands for: that for pictures, or for data of another kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from eqm.cli.detect_tables import is_of_table, is_table


class Kind(NamedTuple):
    """Data other than pictures, and how it is recognised."""

    name: str
    """The commands are detect-fit-NAME, detect-run-NAME and detect-eval-NAME."""
    is_learnt: Callable[[Sequence[str]], bool]
    """Whether `eqm detect fit` with these arguments learns such data."""
    is_folder: Callable[[str], bool]
    """Whether a path is the folder of a detector of such data."""


KINDS = (Kind("table", lambda arguments: any(map(is_table, paths_of(arguments))), is_of_table),)
"""The first that fits is taken; pictures, if none does."""


def of_kind(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line, with `detect`, `detect-fit`, `detect-run` and `detect-eval` replaced by the
    command for the kind of the data."""
    if not arguments or arguments[0] not in ("detect", "detect-fit", "detect-run", "detect-eval"):
        return [*arguments]
    name, *rest = arguments
    for kind in KINDS:
        if (
            kind.is_learnt(rest)
            if name == "detect-fit"
            else any(map(kind.is_folder, paths_of(rest)))
        ):
            return [f"{'detect-run' if name == 'detect' else name}-{kind.name}", *rest]
    return [*arguments]


def paths_of(arguments: Sequence[str]) -> list[str]:
    """The arguments that are no options and do not follow one."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [each for before, each in pairs if not (before.startswith("-") or each.startswith("-"))]
