"""Statement 2 of the paper: in high dimension, local minima of the landscape are data.

Exact fields of normal points in several dimensions: how many long descents end at one of the points?
Trained networks, which cannot store every image: how far from the nearest training image do long descents
of EqM end, and those of flow matching?
"""

from statistics import fmean, pstdev

import torch
from harness import CONSTANT, EQM, Bench, everything, model, parts, prepare, run, seedwise, starts
from torch import Generator
from verdict import Verdict, conclude, margins

from eqm.descent import GradientDescent, descend
from eqm.metrics import nearest_distances
from eqm.optimal import OptimalField
from eqm.plots import BLUE, GREY, RED, drawing

DIMENSIONS = (1, 2, 3, 4, 8, 64)
POINTS, STARTS = 200, 32
LENGTHS = (0.4, 8.0)
"""Path lengths in the exact field: that of sampling, and a long one."""
PATHS = (0.4, 1.0, 2.0, 4.0)
"""Path lengths in trained networks, with step size .04."""
VARIANTS = {"EqM": EQM, "flow matching, unconditioned": CONSTANT}


def arrived(bench: Bench, seed: int, dimension: int) -> tuple[float, ...]:
    """The fraction of descents that end at a point (closer than 5 % of the distance between neighbouring
    points), for each of LENGTHS."""
    generator = Generator().manual_seed(seed)
    data = torch.randn(POINTS, dimension, generator=generator)
    x, field = torch.randn(STARTS, dimension, generator=generator), OptimalField(data, nodes=257)
    apart = nearest_distances(data, data, exclude_self=True).distance.median()
    shares, before = [], 0.0
    for length in LENGTHS:
        x = descend(
            field, x, rule=GradientDescent(0.04), max_steps=round((length - before) / 0.04)
        ).x
        shares.append((nearest_distances(x, data).distance < 0.05 * apart).double().mean().item())
        before = length
    return tuple(shares)


def relative_distance(bench: Bench, seed: int, name: str) -> tuple[float, ...]:
    """The median distance to the nearest training image, divided by that of validation images, after each
    of PATHS."""
    field, (x, labels) = model(bench, VARIANTS[name], seed), starts(bench, seed, 300)
    seen, val_data = (everything(part)[0] for part in parts(bench))
    real = nearest_distances(val_data[:300], seen).distance.median()
    found, before = [], 0.0
    for path in PATHS:
        x = descend(
            field, x, labels, rule=GradientDescent(0.04), max_steps=round((path - before) / 0.04)
        ).x
        found.append((nearest_distances(x, seen).distance.median() / real).item())
        before = path
    return tuple(found)


def local_minima(bench: Bench) -> str:
    prepare(bench, *VARIANTS.values())
    exact = {
        d: list(zip(*some, strict=True)) for d, some in seedwise(bench, arrived, DIMENSIONS).items()
    }
    learnt = {
        n: list(zip(*some, strict=True))
        for n, some in seedwise(bench, relative_distance, list(VARIANTS)).items()
    }
    with drawing(bench.output / f"local_minima-{bench.scale}.png", panels=2) as (left, right):
        for k, (length, color) in enumerate(zip(LENGTHS, (GREY, BLUE), strict=True)):
            values = [exact[d][k] for d in DIMENSIONS]
            means, spreads = (list(map(f, values)) for f in (fmean, pstdev))
            left.errorbar(
                DIMENSIONS, means, spreads, fmt="o-", ms=3, color=color, label=f"path {length:g}"
            )
        left.set(
            xscale="log",
            xlabel="dimensions",
            ylim=(0, 1.05),
            title="Exact field: fraction that ends at data",
        )
        left.set_xticks(DIMENSIONS, list(map(str, DIMENSIONS)))
        left.minorticks_off()
        left.legend(fontsize=7)
        for (name, values), color in zip(learnt.items(), (BLUE, RED), strict=True):
            means, spreads = (list(map(f, values)) for f in (fmean, pstdev))
            right.errorbar(PATHS, means, spreads, fmt="o-", ms=3, color=color, label=name)
        right.axhline(1, color=GREY, ls=":", label="validation images")
        right.set(
            xscale="log",
            xlabel="path",
            yscale="log",
            title="Networks: distance to the nearest image",
        )
        right.set_xticks(PATHS, list(map(str, PATHS)))
        right.minorticks_off()
        right.legend(fontsize=7)
    rows: list[dict[str, object]] = [
        {"field": f"exact, {d} dimensions"}
        | {f"at data after path {length:g}": exact[d][k] for k, length in enumerate(LENGTHS)}
        for d in DIMENSIONS
    ]
    rows += [
        {"field": f"trained, {name}"}
        | {f"distance after path {p:g}": values[k] for k, p in enumerate(PATHS)}
        for name, values in learnt.items()
    ]
    low, high = exact[DIMENSIONS[0]][-1], exact[DIMENSIONS[-1]][-1]
    ours, theirs = (values[-1] for values in learnt.values())
    verdicts = [
        Verdict(
            f"In {DIMENSIONS[-1]} dimensions more than 99 % of descents of the exact field end at data.",
            "proved: probability tends to 1",
            tuple(share - 0.99 for share in high),
        ),
        Verdict(
            f"In {DIMENSIONS[0]} dimension the fraction is lower.",
            "not claimed",
            margins(high, low),
        ),
        Verdict(
            "Long descents of EqM end at training images: at less than half the distance of validation images.",
            "not claimed for networks",
            tuple(0.5 - value for value in ours),
        ),
        Verdict(
            "After long descents, EqM is closer to the training images than flow matching.",
            "not in the paper",
            margins(theirs, ours),
        ),
    ]
    how = (
        f"{bench.basis} Exact: {STARTS} descents from noise in the field of {POINTS} normal points, step size .04. "
        "At data: closer than 5 % of the median distance between neighbouring points. Trained: 300 samples. "
        "Distance: median distance to the nearest training image, divided by that of validation images."
    )
    return conclude(bench, "local_minima", "Statement 2: local minima", rows, verdicts, how=how)


if __name__ == "__main__":
    run(
        local_minima,
        {"EqM-B/2": EQM},
        ["# descend({folder}, noise, labels, rule=GradientDescent(0.04), max_steps=100)"],
    )
