"""The report of an experiment: a table, a plot, and a verdict on every claim of the paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import copysign
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from scipy.stats import t as student

from eqm.devices import describe_run
from eqm.files import replacing
from eqm.plots import BLUE, GREY, RED, drawing

if TYPE_CHECKING:
    from harness import Bench

SURE = 0.95
RULE = (
    "The verdict: each seed gives a margin, by how much the claim held. Variants of one seed share "
    "initial weights, order of the data and noise. P is the probability, by Student's t "
    "distribution, that the mean margin is positive. The claim "
    f"holds from P = {SURE:.0%}, does not hold up to {1 - SURE:.0%}, and is undecided between. One "
    "seed decides nothing."
)

Outcome = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim."""

    claim: str
    """In one sentence."""
    paper: str
    """The paper's numbers."""
    margins: tuple[float, ...]
    """By how much the claim held, one a seed; negative if it did not."""

    @property
    def sure(self) -> float:
        """The probability P that the mean margin is positive, by Student's t distribution."""
        if len(self.margins) < 2:
            return 0.5
        mean, spread = fmean(self.margins), stdev(self.margins)
        if not spread:
            return 0.5 + copysign(0.5, mean) * bool(mean)
        ratio = mean / spread * len(self.margins) ** 0.5
        return float(student.cdf(ratio, len(self.margins) - 1))

    @property
    def outcome(self) -> Outcome:
        """By the rule that `RULE` states."""
        if self.sure >= SURE:
            return "holds"
        return "does not hold" if self.sure <= 1 - SURE else "undecided"


def margins(worse: Sequence[float], better: Sequence[float]) -> tuple[float, ...]:
    """By how much `better` is lower, seed by seed."""
    return tuple(a - b for a, b in zip(worse, better, strict=True))


def best(*variants: Sequence[float]) -> tuple[float, ...]:
    """The lowest of several variants, seed by seed."""
    return tuple(min(values) for values in zip(*variants, strict=True))


def spread(values: object) -> str:
    """A cell: text, a number, or the mean and standard deviation of several, one a seed."""
    if isinstance(values, list | tuple):
        plus_minus = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
        return f"{fmean(values):.4g}{plus_minus}"
    return f"{values:.4g}" if isinstance(values, float) else str(values)


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of cells by the name of their column, in Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[spread(row.get(name, "")) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def conclude(
    bench: Bench,
    name: str,
    title: str,
    rows: Sequence[Mapping[str, object]],
    verdicts: Sequence[Verdict],
    *,
    remarks: str = "",
    how: str = "",
) -> str:
    """The report of an experiment in Markdown, written to NAME-SCALE.md and .json in `bench.output`.

    The experiment draws NAME-SCALE.png itself. `how` is the protocol, by default `bench.how`."""
    result = {
        "name": name,
        "scale": bench.scale,
        "title": title,
        "heading": describe_run().strip(),
        "how": how or bench.how,
        "rows": list(rows),
        "remarks": remarks,
        "verdicts": [
            asdict(v) | {"outcome": v.outcome, "sure": round(v.sure, 4), "mean": fmean(v.margins)}
            for v in verdicts
        ],
    }
    with replacing(bench.output / f"{name}-{bench.scale}.json") as file:
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return write_report(bench.output, result)


def write_report(folder: Path, result: Mapping[str, Any]) -> str:
    """The report of a result in Markdown, written to NAME-SCALE.md in `folder`."""
    name = f"{result['name']}-{result['scale']}"
    said = [
        {
            "claim": v["claim"],
            "paper": v["paper"],
            f"margin here ({len(v['margins'])} seeds)": v["margins"],
            "verdict": f"**{v['outcome']}**",
            "P": f"{v['sure']:.3f}",
        }
        for v in result["verdicts"]
    ]
    parts = [
        f"# {result['title']}",
        f"{result['heading']}\n\n{result['how']}",
        table(result["rows"]),
        result["remarks"],
        f"![{result['title']}]({name}.png)",
        f"## Verdict\n\n{table(said)}",
        RULE,
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    with replacing(folder / f"{name}.md") as file:
        file.write_text(text, encoding="utf-8")
    return text


def compare(
    bench: Bench,
    name: str,
    title: str,
    found: tuple[Mapping[str, Sequence[float]], Mapping[str, object]],
    paper: Mapping[str, float],
    verdicts: Sequence[Verdict],
    *,
    remarks: str = "",
) -> str:
    """The report of variants by their distances and samplers, `found`, and the paper's FID of each."""
    distances, samplers = found
    _beside(bench.output / f"{name}-{bench.scale}.png", distances, paper, bench.floor)
    rows = [
        {
            "variant": variant,
            "Frechet distance": list(values),
            "sampler": str(samplers[variant]),
            "the paper's FID": paper.get(variant, ""),
        }
        for variant, values in distances.items()
    ]
    return conclude(bench, name, title, rows, verdicts, remarks=remarks)


def _beside(
    path: Path,
    ours: Mapping[str, Sequence[float]],
    paper: Mapping[str, float],
    floor: float,
) -> None:
    """Draws the distances of variants, a dot a seed and a bar for their mean, beside the paper's."""
    names = list(ours)
    places = range(len(names))
    with drawing(path, panels=2) as (left, right):
        left.barh(places, [fmean(ours[name]) for name in names], color=BLUE, alpha=0.35)
        for place, name in enumerate(names):
            left.plot(ours[name], [place] * len(ours[name]), "o", color=BLUE, ms=3)
        left.axvline(floor, color=GREY, ls=":", label="real images")
        right.barh(places, [paper.get(name, 0.0) for name in names], color=RED, alpha=0.5)
        left.set(yticks=places, title="Here, Frechet distance")
        right.set(yticks=places, title="The paper, ImageNet 256x256, FID")
        left.set_yticklabels(names)
        right.set_yticklabels([])
        for axis in (left, right):
            axis.set_ylim(len(names) - 0.4, -1.2)
            axis.grid(visible=False, axis="y")
        left.legend(loc="upper right", fontsize=7)
