"""Section: digits out of noise, and whether they are any good."""

from __future__ import annotations

from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.files import replacing
from eqm.metrics import frechet_distance, nearest_distances
from eqm.pictures import grid
from eqm.tasks import generate


def samples(material: Material) -> Section:
    """Ten samples a class, and measures of as many as half the digits."""
    classes = [label for label in range(10) for _ in range(10)]
    sheet = generate(material.model, classes, seed=10_000)
    with replacing(material.folder / "samples.png") as path:
        grid(sheet.x, columns=10, scale=6).save(path, format="png")

    first, second = material.halves
    drawn = material.samples
    distance = frechet_distance(material.moments(drawn.x), material.moments(second.data))
    real = frechet_distance(material.moments(first.data), material.moments(second.data))
    near = nearest_distances(drawn.x, material.seen.data).distance
    near_real = nearest_distances(material.val_data.data, material.seen.data).distance
    copies = (near < near_real.quantile(0.01)).float().mean().item()
    count = len(drawn.x)
    return Section(
        "Digits out of noise",
        "Ten samples of each class. Each began as noise and went down the gradient that the network learned, with no "
        f"noise level or clock, until the gradient was {material.sampling.gradient_ratio:g} of the first.",
        "samples.png",
        (
            Fact(
                "Recognised as their class",
                material.recognised(drawn.x, first.classes),
                f"{count} samples, judged by a convolutional classifier trained on the same training digits",
            ),
            Fact(
                "The classifier on real digits",
                material.classifier_accuracy,
                f"its accuracy on {len(material.val_data)} digits that nothing was trained on",
            ),
            Fact(
                "Frechet distance of the samples",
                distance,
                f"{count} samples with the labels of one half of the real digits, against the other "
                f"half ({len(second)}), in the classifier's 64 features",
            ),
            Fact(
                "Frechet distance between the real halves", real, "the same measure on real digits"
            ),
            Fact(
                "Their ratio",
                distance / real,
                "1 would be indistinguishable by this measure",
                ".2f",
            ),
            Fact(
                "Distance to the nearest training digit",
                near.median().item(),
                f"Euclidean over pixels in -1..1, median over {count} samples",
                ".2f",
            ),
            Fact(
                "The same for real digits",
                near_real.median().item(),
                f"median over {len(material.val_data)} held-out digits",
                ".2f",
            ),
            Fact(
                "Samples that could be copies",
                copies,
                "share nearer to a training digit than 99 % of the held-out digits are; 0.01 is "
                "expected of new digits, 1 of copies",
            ),
            Fact(
                "Evaluations a sample",
                drawn.nfe.float().mean().item(),
                f"mean; from {int(drawn.nfe.min())} to {int(drawn.nfe.max())}: "
                "each sample stops by itself",
                ".1f",
            ),
        ),
    )
