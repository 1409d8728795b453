"""Names: as people type them, and as sentences print them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from eqm.files import printable


def simple(name: str) -> str:
    """The name without the differences that people do not type: case, Unicode form, spaces, _ and -.

    >>> simple("T-Shirt") == simple(" t_shirt")
    True
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return re.sub(r"[\s_-]+", " ", folded).strip()


def said(names: Sequence[str], *, most: int = 3) -> str:
    """The first names, as an error or a note prints them."""
    shown = ", ".join(map(printable, names[:most]))
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


def shortened(text: str, *, most: int = 40) -> str:
    """The end of a text in quotes, as an error or a note prints it."""
    end = text if len(text) <= most else "…" + text[-most:]
    return f"'{printable(end)}'"


def either(words: Sequence[str]) -> str:
    """The words as a choice, such as `a, b or c`."""
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def counted(number: int, noun: str = "picture") -> str:
    """The number with its noun, such as `1 picture` or `2,000 pictures`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def find_class(given: str | int, names: Sequence[str]) -> int | None:
    """The number of the class that is meant by a name or a number; None if there is none.

    A name is found as `simple` compares names; the same spelling comes first. A number is the class
    number, unless a class has it for a name, or all have numbers for names. Raises ValueError where more
    than one name may be meant.

    >>> find_class("t shirt", ["T-shirt", "coat"]), find_class(1, ["T-shirt", "coat"])
    (0, 1)
    >>> find_class(2, ["1", "2"]), find_class("2", ["1", "2"])
    (1, 1)
    """
    text = str(given).strip()
    if str(given) in names:
        return names.index(str(given))
    found = [number for number, name in enumerate(names) if simple(name) == simple(text)]
    if len(found) > 1:
        several = ", ".join(printable(names[number]) for number in found)
        raise ValueError(f"the class {printable(repr(given))} may be {several}: write one in full")
    if found:
        return found[0]
    numbers = all(name.isdecimal() for name in names)
    if text.isascii() and text.isdecimal() and not numbers and int(text) < len(names):
        return int(text)
    return None
