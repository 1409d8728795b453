"""Step sizes: does EqM work with a wide range, and flow matching with one size only?

The paper takes 250 steps of every size, so a larger step also means a longer path (size x steps), and flow
matching needs a path of exactly 1. Therefore both fields are also sampled on a fixed path, 0.425 and 1, with
several step sizes: this shows the effect of the size alone. Beyond a path of 1, flow matching continues with
gamma 1, no noise.
"""

from dataclasses import dataclass
from statistics import fmean, pstdev

from harness import EQM, FLOW, Bench, Model, judge, model, prepare, run, seedwise, starts
from torch import Tensor
from verdict import Verdict, conclude, margins

from eqm.descent import GradientDescent, descend
from eqm.field import Field
from eqm.plots import BLUE, GREY, RED, drawing

STEPS = 40
"""Steps of every size; the paper has 250. The sizes are larger here, so that paths are the same."""
SIZES = (0.0016, 0.0028, 0.004, 0.006, 0.008, 0.010)
"""Step sizes of the paper."""
COUNTS = (5, 10, 20, 40)
PATHS = {"EqM": 250 * 0.0017, "flow matching": 1.0}
FIELDS = {"EqM": EQM, "flow matching": FLOW}
PAPER = {
    "EqM": dict(zip(SIZES, (33.2, 32.85, 33.0, 33.6, 34.6, 35.8), strict=True)),
    "flow matching": {0.004: 37.0, 0.006: 121.0},
}


@dataclass(frozen=True)
class Clocked:
    """A noise-conditioned field whose gamma is the path covered so far, at most 1."""

    field: Model

    def at(self, path: Tensor) -> Field:
        return lambda x, labels: self.field(x, labels, path.clamp(max=1).to(x))

    def __call__(self, x: Tensor, labels: Tensor | None) -> Tensor:
        raise TypeError("a clocked field needs the path: call `at(path)`")


def distance(bench: Bench, seed: int, cell: tuple[str, float, int]) -> float:
    """The distance of samples after equal steps of gradient descent along a path."""
    name, path, steps = cell
    field = model(bench, FIELDS[name], seed)
    ends = descend(
        Clocked(field) if field.config.noise_conditioning else field,
        *starts(bench, seed),
        rule=GradientDescent(path / steps),
        max_steps=steps,
    )
    return judge(bench).distance(ends.x.clamp(-1, 1))


def step_sizes(bench: Bench) -> str:
    prepare(bench, *FIELDS.values())
    fixed_steps = [(name, 250 * size, STEPS) for name in FIELDS for size in SIZES]
    fixed_path = [(name, PATHS[name], steps) for name in FIELDS for steps in COUNTS]
    found = seedwise(bench, distance, fixed_steps + fixed_path)

    with drawing(bench.output / f"step_sizes-{bench.scale}.png", panels=3) as (left, middle, right):
        for name, color in zip(FIELDS, (BLUE, RED), strict=True):
            for panel, cells, x in (
                (left, fixed_steps, [250 * size for size in SIZES]),
                (middle, fixed_path, [PATHS[name] / steps for steps in COUNTS]),
            ):
                mine = [found[cell] for cell in cells if cell[0] == name]
                means, spreads = (list(map(f, mine)) for f in (fmean, pstdev))
                panel.errorbar(x, means, spreads, fmt="o-", ms=3, color=color, label=name)
            right.plot(*zip(*PAPER[name].items(), strict=True), "o-", ms=3, color=color)
        for panel in (left, middle):
            panel.axhline(bench.floor, color=GREY, ls=":")
            panel.set_yscale("log")
        left.set(
            xlabel="path = size x steps", title=f"Frechet distance, {STEPS} steps of every size"
        )
        middle.set(xlabel="step size", title="Frechet distance, path .425 or 1", xscale="log")
        right.set(xlabel="step size", title="The paper: FID, 250 steps", yscale="log")
        left.legend(fontsize=7)

    rows: list[dict[str, object]] = [
        {"steps": STEPS, "path": 250 * size, "step size": 250 * size / STEPS}
        | {name: found[name, 250 * size, STEPS] for name in FIELDS}
        | {"paper's size x 250": size}
        | {f"paper, {name}": PAPER[name].get(size, "") for name in FIELDS}
        for size in SIZES
    ]
    rows += [
        {
            "steps": steps,
            "path": ".425 or 1",
            **{name: found[name, PATHS[name], steps] for name in FIELDS},
        }
        for steps in COUNTS
    ]

    def worse(name: str, cells: list[tuple[float, int]]) -> tuple[float, ...]:
        """The worst distance divided by the best, seed by seed."""
        every = zip(*(found[name, *cell] for cell in cells), strict=True)
        return tuple(max(values) / min(values) for values in every)

    paths = [(250 * size, STEPS) for size in SIZES]
    onwards = [cell for cell in paths if cell[0] >= 1]
    ours, theirs = worse("EqM", onwards), worse("flow matching", onwards)
    own = {name: worse(name, [(PATHS[name], steps) for steps in COUNTS[1:]]) for name in FIELDS}
    verdicts = [
        Verdict(
            "With a fixed number of steps, paths from 1 to 2.5 harm flow matching more than EqM (worst / best).",
            "35.8/33.0 = 1.08 against at least 121/37 = 3.3",
            margins(theirs, ours),
        ),
        Verdict(
            "With a fixed number of steps, none of six sizes raises EqM's distance by more than 10 %.",
            "35.8/32.85 = 1.09",
            tuple(1.1 - ratio for ratio in worse("EqM", paths)),
        ),
        Verdict(
            "With a fixed path, 10 to 40 steps harm flow matching more than EqM (worst / best).",
            "not in the paper",
            margins(own["flow matching"], own["EqM"]),
        ),
    ]
    return conclude(
        *(bench, "step_sizes", "Step sizes", rows, verdicts),
        how=f"{bench.protocol} Gradient descent; for flow matching this is Euler's method.",
    )


if __name__ == "__main__":
    run(
        step_sizes,
        {"EqM-B/2": EQM, "SiT-B/2": FLOW},
        [
            f"eqm sample {{folder}} --rule gradient-descent --step-size {size} --path-length {250 * size:g} "
            f"--guidance 1 --count 50000 --output {{folder}}/{size}.npz"
            for size in SIZES
        ],
    )
