"""What a command says beside its results: notes, warnings, and the sentence of a failure."""

from __future__ import annotations

import logging
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from opcode import opname
from pathlib import Path

import eqm
from eqm.files import DISK_ERRORS, printable

LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
OWN = str(Path(eqm.__file__).parent)


TYPED: dict[str, str] = {}
"""What the user of the running command types for a setting such as `data.layout`."""


def one_line(text: object) -> str:
    """The text in one line, without control characters, with the options that the user types."""
    line = re.sub(r"(?:turn|set) (data\.labels off)", r"set \1", " ".join(str(text).split()))
    words = "|".join(map(re.escape, sorted(TYPED, key=len, reverse=True))) or "$^"
    return printable(
        re.sub(rf"(?<![\w./-])(?:{words})(?![\w/])", lambda word: TYPED[word[0]], line)
    )


@contextmanager
def plain_messages() -> Iterator[None]:
    """Prints what the block logs and warns of on standard error, each sentence once, as `note: ...` or
    `warning: ...`, without file and line. Of several processes the first prints them."""
    said, first = set[str](), os.environ.get("RANK", "0") == "0"

    def say(kind: str, text: object) -> None:
        line = f"{kind}: {one_line(text)}"
        if line not in said and first:
            said.add(line)
            print(line, file=sys.stderr)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say("warning" if record.levelno >= logging.WARNING else "note", record.getMessage())

    root, data, handler = logging.getLogger(), logging.getLogger("eqm.data"), Handler()
    level = data.level
    root.addHandler(handler)
    if first:
        data.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say("warning", message)
            yield
    finally:
        data.setLevel(level)
        root.removeHandler(handler)


def sentence_of(error: Exception) -> str:
    """What went wrong, as one sentence.

    The sentences of eqm and of one's own parts are taken as they are. What a library raises was not foreseen,
    and the sentence says so.
    """
    text = one_line(error)
    if text and not text.startswith("[Errno") and _has_own_words(error):
        return text
    if isinstance(error, MemoryError) or "allocate" in text or "out of memory" in text.lower():
        asked = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGTPE]i?B)", text)
        amount = asked and (asked[2] or f"{int(asked[1]) / 1e9:,.1f} GB")
        return (
            f"there is too little memory{f' for {amount} more' if amount else ''}: take fewer or smaller images, "
            "a smaller --batch-size or a smaller network"
        )
    if isinstance(error, OSError) and error.errno is not None and text.startswith("[Errno"):
        full, advice = DISK_ERRORS.get(
            error.errno, ("", "check that it is there, and its permissions")
        )
        return f"cannot use {_named(error)} ({full or os.strerror(error.errno)}): {advice}"
    kind = type(error).__name__
    return (
        f"unexpected {kind}{f' ({text})' if text else ''}: the input may be damaged; if it is whole, run the command "
        "again with EQM_TRACEBACK=1 and report what it prints"
    )


def _named(error: OSError) -> str:
    names = [
        os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
    ]
    return printable(" and ".join(names) or "a file or standard output")


def _has_own_words(error: Exception) -> bool:
    """Whether a `raise` of eqm, or of a module outside of the libraries, made the error."""
    if type(error).__module__.partition(".")[0] == "eqm":
        return True
    if (
        type(error) not in (ValueError, RuntimeError, OSError, MemoryError)
        or error.__traceback__ is None
    ):
        return False
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    library = code.co_filename.startswith(LIBRARIES) and not code.co_filename.startswith(OWN)
    return not library and opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
