"""Section: two classes at once."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from eqm.composition import compose, condition
from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import save, show
from eqm.descent import descend
from eqm.sampling import starting_noise

PAIRS = ((4, 6), (3, 9), (1, 7), (0, 6))
COUNT, SHOWN = 200, 12


def composition(material: Material) -> Section:
    """Samples of the mean of two labels' fields."""
    noise = starting_noise(material.model.config.shape, seeds=range(COUNT))
    rule, stop = material.sampling.make_rule(), material.sampling.make_stop()
    figure, axes = plt.subplots(len(PAIRS), 1, figsize=(8, 3), layout="constrained")
    facts = []
    for pair, axis in zip(PAIRS, axes, strict=True):
        parts = [condition(material.model, label) for label in pair]
        both = descend(compose(parts, [0.5, 0.5]), noise, rule=rule, stop=stop).x
        alone = [descend(part, noise, rule=rule, stop=stop).x for part in parts]
        a, b = pair
        facts.append(
            Fact(
                f"Recognised as {a} and {b}",
                in_top_two(material, both, pair),
                f"share of {COUNT} samples whose two most probable classes, by the classifier, are these; "
                f"{in_top_two(material, alone[0], pair):.2f} of the samples of {a} alone, "
                f"{in_top_two(material, alone[1], pair):.2f} of {b} alone",
                ".2f",
            )
        )
        show(axis, both[:SHOWN])
        axis.set_ylabel(f"{a} and {b}", rotation=0, ha="right", va="center")
    save(figure, material.folder / "composition.png")
    return Section(
        "Two classes at once",
        "Gradients can be added. The mean of the fields of two labels leads to images that are low in both energies. "
        "This needs no training.",
        "composition.png",
        tuple(facts),
    )


def in_top_two(material: Material, images: Tensor, pair: tuple[int, int]) -> float:
    """Share of the images whose two most probable classes are the pair, in either order."""
    with torch.no_grad():
        top = material.classifier(images).topk(2).indices.sort(dim=1).values
    return (top == torch.tensor(sorted(pair))).all(1).float().mean().item()
