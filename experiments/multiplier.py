"""The multiplier lambda of the truncated decay, 1 to 6.

A field that is lambda times as large is descended on a path that is lambda times as short, in the same
number of steps. So only what the network learns differs. The paper keeps one step size instead.
"""

from harness import Bench, distances, run
from verdict import Verdict, best, compare, margins

PAPER = {"1": 38.3, "2": 35.0, "3": 34.7, "4": 32.85, "5": 34.7, "6": 35.6}
VARIANTS = {name: {"objective.scale": float(name)} for name in PAPER}


def multiplier(bench: Bench) -> str:
    found = distances(bench, VARIANTS)
    one, two, three, four, five, six = found[0].values()
    verdicts = (
        Verdict("A multiplier of 4 beats 1.", "32.85 against 38.3", margins(one, four)),
        Verdict("A multiplier of 4 beats 6.", "32.85 against 35.6", margins(six, four)),
        Verdict(
            "A multiplier of 4 is the best of 1 to 6.",
            "32.85; next best 34.7",
            margins(best(one, two, three, five, six), four),
        ),
    )
    return compare(bench, "multiplier", "The multiplier lambda", found, PAPER, verdicts)


if __name__ == "__main__":
    run(multiplier, VARIANTS)
