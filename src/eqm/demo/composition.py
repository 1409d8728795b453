"""Section: two classes at once."""

from __future__ import annotations

import torch
from torch import Tensor

from eqm.composition import compose, condition
from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import strips
from eqm.descent import descend
from eqm.sampling import starting_noise

PAIRS = ((4, 6), (3, 9), (1, 7), (0, 6))
COUNT, SHOWN = 200, 12


def composition(material: Material) -> Section:
    """Samples of the mean of two labels' fields."""
    noise = starting_noise(material.model.config.shape, seeds=range(COUNT))
    rule, stop = material.sampling.make_rule(), material.sampling.make_stop()
    facts, shown = [], {}
    for pair in PAIRS:
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
        shown[f"{a} and {b}"] = both[:SHOWN]
    strips(material.folder / "composition.png", [shown], height=3)
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
