"""Statement 3 of the paper: a bound on the convergence of descent.

min_k ||f(x_k)||^2 <= 2 (E(x_0) - E_inf) / (size * K)  for a step size of at most 1 / L

for a field that is the gradient of an L-smooth energy with infimum E_inf. L is estimated by the
stiffness along descents, E_inf by the lowest energy of a sample's descent, which makes the bound tighter.
A dot energy has an energy. For implicit EqM and for the exact field of some images the line integral of
the field along the descent is used instead.
"""

from typing import NamedTuple

import torch
from harness import DOT, EQM, Bench, everything, model, parts, prepare, run, seedwise, starts
from torch import Tensor
from verdict import Verdict, conclude

from eqm.descent import GradientDescent, measure_trajectory, record_trajectory, stiffness
from eqm.field import Field
from eqm.optimal import OptimalField
from eqm.plots import BLUE, GREEN, RED, drawing

COUNT, STEPS, EXACT = 64, 100, 64
DOTTED, OURS, OPTIMAL = "dot energy", "EqM, line integral", "exact field, line integral"
VARIANTS = {DOTTED: DOT, OURS: EQM}


class Bound(NamedTuple):
    """The results of one field."""

    smoothness: float
    """L, the largest stiffness measured."""
    least: Tensor
    """The median over the samples of the least squared norm after each step, (STEPS,)."""
    bound: Tensor
    """The median of the bound, (STEPS,)."""
    tightest: float
    """The largest ratio of the two over samples and steps; 1 is on the bound."""
    kept: float
    """Fraction of samples and steps where the bound holds."""


def bound(bench: Bench, seed: int, name: str) -> Bound:
    """The results of a variant or of the exact field."""
    noise, labels = starts(bench, seed, COUNT)
    if name == OPTIMAL:
        exact = OptimalField(everything(parts(bench)[0])[0][:EXACT], nodes=257)
        return descended(exact, noise[: COUNT // 4])
    return descended(model(bench, VARIANTS[name], seed), noise, labels)


def descended(field: Field, noise: Tensor, labels: Tensor | None = None) -> Bound:
    """The results of descents from noise (B, ...) with step size 1 / L."""
    ahead = record_trajectory(
        field, noise, labels, rule=GradientDescent(0.02), at=[0, 5, 10, 12, 15, 25]
    )
    largest = max(stiffness(field, x, labels).max().item() for x in ahead.x)
    size = 1 / largest
    descent = record_trajectory(
        *(field, noise, labels),
        rule=GradientDescent(size),
        at=range(STEPS + 1),
        max_steps=STEPS,
    )
    found = measure_trajectory(field, descent, labels)
    energy = (found.work if found.energy is None else found.energy).double()
    least = found.gradient_norm[:-1].double().square().cummin(0).values  # (STEPS, B)
    count = torch.arange(1, STEPS + 1)[:, None]
    above = 2 * (energy[0] - energy.amin(0)) / (size * count)
    ratio = least / above
    return Bound(
        *(largest, least.median(1).values, above.median(1).values),
        *(ratio.max().item(), (ratio <= 1).double().mean().item()),
    )


def convergence_bound(bench: Bench) -> str:
    prepare(bench, *VARIANTS.values())
    names = [*VARIANTS, OPTIMAL]
    found = seedwise(bench, bound, names)
    count = torch.arange(1, STEPS + 1)
    with drawing(bench.output / f"convergence_bound-{bench.scale}.png", panels=3) as panels:
        for panel, name, color in zip(panels, names, (BLUE, GREEN, RED), strict=True):
            for k, each in enumerate(found[name]):
                panel.plot(
                    count, each.least, color=color, lw=1, label=None if k else "least so far"
                )
                panel.plot(count, each.bound, "--", color=color, lw=1, label=None if k else "bound")
            panel.set(xscale="log", yscale="log", xlabel="steps", title=f"Squared gradient, {name}")
            panel.legend(fontsize=7)
    rows = [
        {
            "field": name,
            "L": tuple(each.smoothness for each in found[name]),
            "step size 1/L": tuple(1 / each.smoothness for each in found[name]),
            "bound holds at": tuple(each.kept for each in found[name]),
            "largest ratio": tuple(each.tightest for each in found[name]),
            f"squared norm / bound, {STEPS} steps": tuple(
                (each.least[-1] / each.bound[-1]).item() for each in found[name]
            ),
        }
        for name in names
    ]
    verdicts = [
        Verdict(
            f"Every sample stays within the bound at every step: {name}.",
            "proved" if name == DOTTED else "not claimed: the field is not a gradient",
            tuple(1 - each.tightest for each in found[name]),
        )
        for name in names
    ]
    how = (
        f"{bench.basis} {COUNT} descents of {STEPS} steps from noise, with labels; {COUNT // 4} descents for the "
        f"exact field of {EXACT} training images. L is the largest stiffness at six points of the descents, so "
        "it may be too low."
    )
    return conclude(
        bench, "convergence_bound", "Statement 3: the convergence bound", rows, verdicts, how=how
    )


if __name__ == "__main__":
    run(
        convergence_bound,
        {"EqM-E-B/2": "eqm train imagenet256-b-2-dot"},
        ["# record and measure descents of {folder} in steps of 1 / stiffness"],
    )
