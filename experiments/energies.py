"""Explicit energies: an implicit field, the gradient of the dot product <x, h(x)>, and the gradient of the
squared norm ||h(x)||^2 / 2.

All see the same number of images. The squared norm learns nothing from new weights, because their output is
zero. It starts from an implicit field trained on half of the images, and trains on the other half with a
quarter of the learning rate and clipped gradients.
"""

from harness import EQM, Bench, distances, run
from verdict import Verdict, compare, margins

PAPER = {"implicit": 57.54, "dot product": 73.40, "squared norm": 75.53}
IMPLICIT = "runs/imagenet/implicit"
PUBLISHED = {
    "implicit": "eqm train imagenet256-b-4",
    "dot product": "eqm train imagenet256-b-4 --objective.energy dot",
    "squared norm": f"eqm train imagenet256-b-4 --objective.energy norm --init-from {IMPLICIT}",
}


def energies(bench: Bench) -> str:
    recipe = bench.at.recipe
    half = {"images": recipe.images // 2}
    norm = {
        **half,
        "objective.energy": "norm",
        "optimizer.learning_rate": recipe.optimizer.learning_rate / 4,
        "optimizer.clip": 1.0,
        "init_from": half,
    }
    dot = {"objective.energy": "dot"}
    found = distances(bench, {"implicit": EQM, "dot product": dot, "squared norm": norm})
    implicit, dot, squared = found[0].values()
    verdicts = (
        Verdict(
            "An implicit field beats the dot energy.", "57.54 against 73.40", margins(dot, implicit)
        ),
        Verdict(
            "An implicit field beats the squared norm.",
            "57.54 against 75.53",
            margins(squared, implicit),
        ),
        Verdict(
            "The dot energy beats the squared norm.", "73.40 against 75.53", margins(squared, dot)
        ),
    )
    return compare(bench, "energies", "Explicit energies", found, PAPER, verdicts)


if __name__ == "__main__":
    run(energies, PUBLISHED)
