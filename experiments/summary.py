"""Which claims of the paper hold at the scales that were run: writes README.md from results/*.json.

python experiments/summary.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from verdict import RULE, SURE, table

from eqm.files import replacing

HERE = Path(__file__).parent
HEAD = """# The paper's claims, rerun

Each table or figure of arXiv 2510.02300 is a command here, on the 8x8 digits within minutes on a CPU:

    python experiments/conditioning.py                         # digits, three seeds
    python experiments/conditioning.py --scale fashion-mnist   # an hour on a CPU
    python experiments/conditioning.py --scale imagenet        # prints the published commands
    make experiments                                           # all of them on the digits: 25 minutes, EPYC, 2 cores

It trains its variants (`runs/experiments` keeps them, the experiments share them, and a command that
was interrupted goes on), samples them, and writes a table, a plot and a verdict to `results/`. This page
is written by `python experiments/summary.py` from what is there. All of it is far from the paper's
scale: what does not hold here may hold there.

Every variant is sampled by one rule. What is not told the noise level descends, in as many evaluations
of the field as all others, by the best of gradient descent and the paper's look-ahead rule, on paths
that leave between 3 % and 0.001 % of the noise by the variant's own c(gamma) (`d gamma / d s = c`), or
with steps even in gamma; the best is picked with other noise than is reported. What is told the noise
level takes as many steps even in gamma.
"""


@dataclass(frozen=True)
class Options:
    """Where the results are, and where the page goes."""

    results: Path = HERE / "results"
    page: Path = HERE / "README.md"


def summary(results: Path) -> str:
    """The page, in Markdown.

    Raises ValueError where there are no results."""
    found = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))
    ]
    if not found:
        raise ValueError(f"{results} holds no results: run an experiment first")
    scales = sorted({result["scale"] for result in found})
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for result in found:
        for verdict in result["verdicts"]:
            row = rows.setdefault(
                (result["name"], verdict["claim"]),
                {
                    "experiment": result["name"],
                    "claim": verdict["claim"],
                    "the paper": verdict["paper"],
                    **dict.fromkeys(scales, ""),
                },
            )
            link = f"results/{result['name']}-{result['scale']}.md"
            row[result["scale"]] = (
                f"[{verdict['outcome']}]({link}), P {verdict['sure']:.3f} "
                f"({len(verdict['margins'])} seeds)"
            )
    chance = f"Among so many claims, one in {round(1 / (1 - SURE))} would come out by chance."
    return f"{HEAD}\n{RULE} {chance}\n\n{table(list(rows.values()))}\n"


def main(options: Options) -> None:
    """Writes the page."""
    text = summary(options.results)
    with replacing(options.page) as file:
        file.write_text(text, encoding="utf-8")
    print(f"written to {options.page}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
