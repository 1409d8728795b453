"""The files that a pattern such as `{000..009}.tar` stands for."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from eqm.data.source import MissingDataError
from eqm.data.splits import is_litter
from eqm.naming import said

MOST_FILES = 100_000
"""A pattern that stands for more files is refused."""
_BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")


def expanded(pattern: str) -> list[Path]:
    """The files that a pattern with `{000..009}`, `{a,b}`, `*`, `?` or `**` stands for.

    Raises MissingDataError where some of them are not there, and ValueError for too many.
    """
    found: list[Path] = []
    missing: list[str] = []
    for name in _unbraced(pattern):
        matches = [name]
        if glob.has_magic(name):
            matches = glob.glob(name, recursive=True)  # noqa: PTH207
        there = [Path(match) for match in sorted(matches) if Path(match).is_file()]
        found += [path for path in there if not is_litter(path.name)]
        if not there:
            missing.append(name)
    if missing:
        of = f", {len(missing):,} of {len(missing) + len(found):,} files" if found else ""
        raise MissingDataError(f"there is no {said(missing)}{of}: check {pattern}")
    return list(dict.fromkeys(found))


def _unbraced(pattern: str) -> list[str]:
    """The patterns without braces that a pattern with braces stands for, as in a shell."""
    done, left = [], [pattern]
    while left:
        text = left.pop()
        brace = _BRACES.search(text)
        if brace is None:
            done.append(text)
            continue
        if brace[1]:
            first, last = int(brace[1]), int(brace[2])
            if abs(last - first) >= MOST_FILES:
                raise ValueError(
                    f"{pattern} stands for more than {MOST_FILES:,} files: check the numbers in it"
                )
            width = (
                max(map(len, brace.groups()[:2])) if brace[1][0] == "0" or brace[2][0] == "0" else 0
            )
            steps = range(first, last + 1) if first <= last else range(first, last - 1, -1)
            choices = [f"{number:0{width}}" for number in steps]
        else:
            choices = brace[3].split(",")
        if len(choices) * (len(left) + len(done) + 1) > MOST_FILES:
            raise ValueError(
                f"{pattern} stands for more than {MOST_FILES:,} files: check the numbers in it"
            )
        left += [text[: brace.start()] + one + text[brace.end() :] for one in reversed(choices)]
    return done
