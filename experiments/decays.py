"""Families of the decay c(gamma) and their parameters, at multiplier 1: constant, linear, truncated at
a, and piecewise from b to 1 at .8.

Each field is sampled by the best sampler of the harness, on a path of the length that its decay needs,
the integral of 1 / c.
"""

from harness import CONSTANT, ONE, Bench, distances, run
from verdict import Verdict, best, compare, margins

PAPER = {
    "constant": 40.81,
    "linear": 50.47,
    "truncated, a = .5": 38.98,
    "truncated, a = .8": 38.34,
    "truncated, a = .9": 41.22,
    "piecewise, b = .8": 38.84,
    "piecewise, b = 1.4": 38.75,
}
VARIANTS = {
    "constant": CONSTANT,
    "linear": {"objective.decay": "linear", **ONE},
    **{f"truncated, a = .{a}": {"objective.start": a / 10, **ONE} for a in (5, 8, 9)},
    **{
        f"piecewise, b = {b:g}".replace(" 0.", " ."): {
            "objective.decay": "piecewise",
            "objective.initial": b,
            **ONE,
        }
        for b in (0.8, 1.4)
    },
}


def decays(bench: Bench) -> str:
    found = distances(bench, VARIANTS)
    distance = found[0]
    ours = distance["truncated, a = .8"]
    others = best(*(values for name, values in distance.items() if values is not ours))
    verdicts = (
        Verdict(
            "The truncated decay (a = .8) beats the constant one.",
            "38.34 against 40.81",
            margins(distance["constant"], ours),
        ),
        Verdict(
            "The truncated decay (a = .8) beats the linear one.",
            "38.34 against 50.47",
            margins(distance["linear"], ours),
        ),
        Verdict(
            "No other decay beats the truncated one with a = .8.",
            "38.34; next best 38.75",
            margins(others, ours),
        ),
    )
    return compare(bench, "decays", "Families of c(gamma)", found, PAPER, verdicts)


if __name__ == "__main__":
    run(decays, VARIANTS)
