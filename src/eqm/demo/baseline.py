"""Section: equilibrium matching beside flow matching at equal budget."""

from __future__ import annotations

import matplotlib.pyplot as plt

from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import BLUE, GREY, RED, save
from eqm.descent import integrate
from eqm.metrics import frechet_distance
from eqm.sampling import Sampling, starting_noise
from eqm.tasks import generate

EVALUATIONS = (5, 10, 20)
PATH = 0.4


def baseline(material: Material) -> Section:
    """Frechet distance and recognised share of both models over the number of evaluations."""
    first, second = material.halves
    reference = material.moments(second.data)
    noise = starting_noise(first.shape, seeds=range(material.seed, material.seed + len(first)))
    real = frechet_distance(material.moments(first.data), reference)

    ours: list[tuple[float, float]] = []
    flow: list[tuple[float, float]] = []
    for count in EVALUATIONS:
        even = Sampling("nesterov-lookahead", step_size=PATH / count, path_length=PATH)
        for results, drawn in (
            (ours, generate(material.model, first.classes, seed=material.seed, sampling=even).x),
            (flow, integrate(material.baseline, noise, first.classes, steps=count).x),
        ):
            distance = frechet_distance(material.moments(drawn), reference)
            results.append((distance, material.recognised(drawn, first.classes)))

    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    for axis, part, title in zip(axes, (0, 1), ("Frechet distance", "recognised"), strict=True):
        for results, color, name in (
            (ours, BLUE, "equilibrium matching"),
            (flow, RED, "flow matching"),
        ):
            axis.plot(EVALUATIONS, [r[part] for r in results], "o-", color=color, label=name)
        axis.set(xscale="log", xlabel="evaluations a sample", title=title)
        axis.set_xticks(EVALUATIONS, [str(count) for count in EVALUATIONS])
        axis.minorticks_off()
    axes[0].axhline(real, color=GREY, ls=":", label="two real halves")
    axes[0].set_ylim(bottom=0)
    axes[0].legend()
    save(figure, material.folder / "baseline.png")

    how = f"{len(first)} samples from the same noise, labels and reference half as above"
    facts = []
    for count, us, them in zip(EVALUATIONS, ours, flow, strict=True):
        facts += [
            Fact(f"Frechet distance, {count} evaluations, equilibrium matching", us[0], how),
            Fact(f"Frechet distance, {count} evaluations, flow matching", them[0], how),
        ]
    return Section(
        "Beside flow matching",
        "The same network, digits, batches, number of training images and seed; the flow-matching "
        f"network is also told the noise level. Ours descends with the paper's look-ahead rule and "
        f"a path of {PATH:g}, flow matching takes Euler steps. Digits this small are easy for "
        "both.",
        "baseline.png",
        tuple(facts),
    )
