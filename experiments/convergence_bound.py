"""Statement 3 of the paper: descent converges as fast as smoothness says.

min_k ||f(x_k)||^2 <= 2 (E(x_0) - E_inf) / (size * K)  for a step size of at most 1 / L

for a field that is the gradient of an L-smooth energy with infimum E_inf. L is estimated by the
stiffness along descents, E_inf by the lowest energy that a sample met, which only makes the bound
harder to keep. A dot energy has its energy; for EqM without one, and for the exact field of some
images, the work along the descent takes its place, the line integral of the field.
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
DOTTED, OURS, OPTIMAL = "dot energy", "EqM, by its work", "exact field, by its work"
VARIANTS = {DOTTED: DOT, OURS: EQM}


class Bound(NamedTuple):
    """What one field came to."""

    smoothness: float
    """L, the largest stiffness met."""
    least: Tensor
    """The median over the samples of the least squared norm after each step, (STEPS,)."""
    bound: Tensor
    """The median of the bound, (STEPS,)."""
    tightest: float
    """The largest quotient of the two, of any sample after any step: 1 is on the bound."""
    kept: float
    """Share of samples and steps at which it is kept."""


def bound(bench: Bench, seed: int, name: str) -> Bound:
    """What a variant, or the exact field, comes to."""
    noise, labels = starts(bench, seed, COUNT)
    if name == OPTIMAL:
        exact = OptimalField(everything(parts(bench)[0])[0][:EXACT], nodes=257)
        return descended(exact, noise[: COUNT // 4])
    return descended(model(bench, VARIANTS[name], seed), noise, labels)


def descended(field: Field, noise: Tensor, labels: Tensor | None = None) -> Bound:
    """What the descents of a field from noise (B, ...) come to, in steps of 1 / L."""
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
    quotient = least / above
    return Bound(
        *(largest, least.median(1).values, above.median(1).values),
        *(quotient.max().item(), (quotient <= 1).double().mean().item()),
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
            "kept at": tuple(each.kept for each in found[name]),
            "largest quotient": tuple(each.tightest for each in found[name]),
            f"squared norm over bound, {STEPS} steps": tuple(
                (each.least[-1] / each.bound[-1]).item() for each in found[name]
            ),
        }
        for name in names
    ]
    verdicts = [
        Verdict(
            f"The bound is kept by every sample after every step: {name}.",
            "proved" if name == DOTTED else "not claimed of what is no gradient",
            tuple(1 - each.tightest for each in found[name]),
        )
        for name in names
    ]
    how = (
        f"{bench.basis} {COUNT} descents of {STEPS} steps from noise, with labels; {COUNT // 4} of the exact "
        f"field, which is that of {EXACT} training images. L is the largest stiffness at six moments of "
        "descents, an estimate from below."
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
