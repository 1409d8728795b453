"""Which claims of the paper hold here: writes README.md and results/*.md from results/*.json.

python experiments/summary.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from verdict import RULE, SURE, table, write_report

from eqm.files import replacing

HERE = Path(__file__).parent
HEAD = """# Does the paper hold?

Each table and figure of arXiv 2510.02300 is a command. On the 8x8 digits it takes minutes on a CPU:

    python experiments/conditioning.py                         # digits, three seeds
    python experiments/conditioning.py --scale fashion-mnist   # an hour on a CPU
    python experiments/conditioning.py --scale imagenet        # prints the published commands
    make experiments                                           # all, on the digits: 25 minutes

An experiment trains its variants and samples them. It writes a table, a plot and a verdict to `results/`.
`runs/experiments` keeps the trained variants, so that experiments share them and an interrupted command
resumes. `python experiments/summary.py` writes this page. All of it is far from the paper's scale: a claim
that does not hold here may hold there. Times are on an EPYC with 2 cores.

All variants get the same NFE. A network that is not noise-conditioned is sampled by the best of these:
gradient descent or the paper's Nesterov sampler, on paths that leave between 3 % and 0.001 % of the noise by
the variant's own c(gamma) (`d gamma / d s = c`), or steps even in gamma. The choice is made on other noise
than the reported samples. A noise-conditioned network takes steps even in gamma.
"""


@dataclass(frozen=True)
class Options:
    """Folder of the results, and path of the page."""

    results: Path = HERE / "results"
    page: Path = HERE / "README.md"


def summary(results: Path) -> str:
    """The page in Markdown; the report of each result is written too.

    Raises ValueError if there are no results."""
    found = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))
    ]
    if not found:
        raise ValueError(f"{results} holds no results: run an experiment first")
    scales = sorted({result["scale"] for result in found})
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for result in found:
        write_report(results, result)
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
    chance = f"One in {round(1 / (1 - SURE))} of so many claims would hold by chance."
    return f"{HEAD}\n{RULE} {chance}\n\n{table(list(rows.values()))}\n"


def main(options: Options) -> None:
    """Writes the pages."""
    text = summary(options.results)
    with replacing(options.page) as file:
        file.write_text(text, encoding="utf-8")
    print(f"written to {options.page}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
