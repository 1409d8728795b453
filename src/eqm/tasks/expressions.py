"""Parsing of compositions such as `7 + 0.5*3 - 1`."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

from eqm.checks import kind_of
from eqm.sampling.labels import NONE
from eqm.schema import shown

TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[^\W\d]\w*)"
    r"|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<sign>[-+*:~])|(?P<end>\Z))"
)


@dataclass(frozen=True)
class Term:
    """A label and its weight."""

    label: int | str | None
    """Its number or name; None for the null label."""
    weight: float = 1.0
    masks: tuple[str, ...] = ()
    """Names of masks that multiply the weight; `~name` is one minus the mask."""
    model: str = ""
    """The name of the model of the label; empty if not given."""
    position: int = field(default=0, compare=False)
    """Position of the label in the expression, from 1."""


def parse(expression: str) -> tuple[Term, ...]:
    """The terms of an expression such as `7 + 0.5*3 - 1`, in order.

        expression = [sign] term { sign term }          sign = "+" | "-"
        term       = { weight "*" } [ model ":" ] label
        weight     = number | [ "~" ] mask
        label      = whole number | name | "none" | "null"

    Names of letters, digits and `_` need no quotes; other names do. The last factor of a term is its
    label: `2*3` is label 3 with weight 2. Raises ValueError for anything else, with what was expected
    at which position.

    >>> parse("7 - 0.5*left*'ankle boot'")[1]
    Term(label='ankle boot', weight=-0.5, masks=('left',), model='', position=14)
    """
    if not isinstance(expression, str):
        raise ValueError(f"expression must be text, such as '7 + 3'; got {kind_of(expression)}")
    tokens = deque(_tokens(expression))
    terms = []
    while True:
        sign = tokens.popleft().text if tokens[0].kind in ("+", "-") else "+"
        terms.append(_term(expression, tokens, -1.0 if sign == "-" else 1.0))
        if tokens[0].kind == "end":
            return tuple(terms)
        if tokens[0].kind not in ("+", "-"):
            raise _expected("+, - or the end", expression, tokens[0])


class _Token(NamedTuple):
    kind: str
    """number, name, quoted, end, or the sign itself."""
    text: str
    position: int


def _tokens(expression: str) -> Iterator[_Token]:
    end = 0
    while True:
        found = TOKEN.match(expression, end)
        if found is None:
            start = len(expression) - len(expression[end:].lstrip())
            stray = _Token("stray", expression[start], start + 1)
            raise _expected("a label, a weight or a sign", expression, stray)
        kind, end = str(found.lastgroup), found.end()
        text = found[kind]
        quoted = kind in ("single", "double")
        kind = text if kind == "sign" else "quoted" if quoted else kind
        yield _Token(kind, text, found.start(found.lastgroup or 0) + 1 - quoted)
        if kind == "end":
            return


def _term(expression: str, tokens: deque[_Token], weight: float) -> Term:
    masks: list[str] = []
    while True:
        complement = tokens.popleft() if tokens[0].kind == "~" else None
        token = tokens.popleft()
        if tokens and tokens[0].kind == "*":
            if token.kind == "number" and complement is None:
                weight *= float(token.text)
                if not isfinite(weight):
                    raise _expected("a finite weight", expression, token)
            elif token.kind in ("name", "quoted"):
                masks.append(f"{'~' if complement else ''}{token.text}")
            else:
                raise _expected("a number or a mask before *", expression, token)
            tokens.popleft()
            continue
        if complement is not None:
            raise _expected("~ before a mask, as in ~left*3", expression, complement)
        model = ""
        if token.kind in ("name", "quoted") and tokens and tokens[0].kind == ":":
            model, _, token = token.text, tokens.popleft(), tokens.popleft()
        label: int | str | None = token.text
        if token.kind == "number" and token.text.isdecimal() and len(token.text) <= 18:
            number = int(token.text)  # 007 may be what a class is called
            label = number if str(number) == token.text else token.text
        elif token.kind == "name" and token.text in NONE:
            label = None
        elif token.kind not in ("name", "quoted"):
            raise _expected("a label (a whole number, a name or none)", expression, token)
        return Term(label, weight, tuple(masks), model, token.position)


def _expected(what: str, expression: str, token: _Token) -> ValueError:
    found = "the end" if token.kind == "end" else shown(token.text)
    return ValueError(
        f"{shown(expression)}: expected {what} at position {token.position}; got {found}"
    )
