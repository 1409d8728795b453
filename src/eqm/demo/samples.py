"""Section: samples of digits, and how good they are."""

from __future__ import annotations

from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.files import replacing
from eqm.metrics import frechet_distance, nearest_distances
from eqm.pictures import grid
from eqm.tasks import generate


def samples(material: Material) -> Section:
    """Ten samples of each class, and measurements of as many samples as half of the digits."""
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
        "Samples of digits",
        "Ten samples of each class. Each starts from noise and follows the gradient until the gradient norm is "
        f"{material.sampling.gradient_ratio:g} of the first one. No noise level is used.",
        "samples.png",
        (
            Fact(
                "Recognised as their class",
                material.recognised(drawn.x, first.classes),
                f"{count} samples, by a convolutional classifier trained on the same training digits",
            ),
            Fact(
                "The classifier on real digits",
                material.classifier_accuracy,
                f"its accuracy on the {len(material.val_data)} validation digits",
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
            Fact("Their ratio", distance / real, "1 would be as close as real digits are", ".2f"),
            Fact(
                "Distance to the nearest training digit",
                near.median().item(),
                f"Euclidean over pixels in -1..1, median over {count} samples",
                ".2f",
            ),
            Fact(
                "The same for real digits",
                near_real.median().item(),
                f"median over {len(material.val_data)} validation digits",
                ".2f",
            ),
            Fact(
                "Samples that could be copies",
                copies,
                "share nearer to a training digit than 99 % of the validation digits are; 0.01 is expected for new "
                "digits, 1 for copies",
            ),
            Fact(
                "Evaluations per sample",
                drawn.nfe.float().mean().item(),
                f"mean; {int(drawn.nfe.min())} to {int(drawn.nfe.max())}, as each sample stops by itself",
                ".1f",
            ),
        ),
    )
