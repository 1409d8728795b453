"""Section: samples of equilibrium matching and of flow matching at equal cost."""

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
    """Frechet distance and recognised share of both models for each number of evaluations."""
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
        axis.set(xscale="log", xlabel="evaluations per sample", title=title)
        axis.set_xticks(EVALUATIONS, [str(count) for count in EVALUATIONS])
        axis.minorticks_off()
    axes[0].axhline(real, color=GREY, ls=":", label="two real halves")
    axes[0].set_ylim(bottom=0)
    axes[0].legend()
    save(figure, material.folder / "baseline.png")

    how = f"{len(first)} samples with the same noise, labels and reference as above"
    facts = []
    for count, us, them in zip(EVALUATIONS, ours, flow, strict=True):
        facts += [
            Fact(f"Frechet distance, {count} evaluations, equilibrium matching", us[0], how),
            Fact(f"Frechet distance, {count} evaluations, flow matching", them[0], how),
        ]
    lower: dict[str, list[str]] = {"EqM": [], "flow matching": []}
    for count, us, them in zip(EVALUATIONS, ours, flow, strict=True):
        lower["EqM" if us < them else "flow matching"].append(str(count))
    return Section(
        "Samples: EqM and flow matching",
        "Both models have the same network, digits, batches, number of training images and seed. The network of flow "
        f"matching also gets the noise level. EqM uses the paper's Nesterov rule and a path of {PATH:g}, "
        "flow matching uses Euler steps. Lower distances are better.",
        "baseline.png",
        tuple(facts),
        verdict="Sampling: the Frechet distance is lower (better) "
        + " and ".join(f"for {name} at {', '.join(nfe)} NFE" for name, nfe in lower.items() if nfe)
        + " (one seed).",
    )
