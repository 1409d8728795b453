"""Descending a field: rules (how to move), stops (when to end) and the one loop that runs them."""

from eqm.descent.driver import Descent, Outcome, descend, iterate
from eqm.descent.flow import integrate
from eqm.descent.rules import GradientDescent, Move, NesterovLookahead, Rule
from eqm.descent.stopping import GradientNorm, PathLength, Step, Stop

__all__ = [
    "Descent",
    "GradientDescent",
    "GradientNorm",
    "Move",
    "NesterovLookahead",
    "Outcome",
    "PathLength",
    "Rule",
    "Step",
    "Stop",
    "descend",
    "integrate",
    "iterate",
]
