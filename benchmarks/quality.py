"""The quality of samples, judged by a classifier that was trained on real pictures.

    python benchmarks/quality.py --model fashion-mnist

Accuracy is the fraction of samples that the classifier assigns to their class. The Frechet distance to test
pictures is in its features. Diversity is the mean distance between two samples of a class in these
features. Training and test pictures are measured too. Guidance raises accuracy and lowers diversity.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from timing import record
from torch import Tensor

import eqm
from eqm.data import DataConfig, Images, open_source
from eqm.features import accuracy, embed, train_classifier
from eqm.metrics import Moments, frechet_distance
from eqm.pictures import grid
from eqm.randomness import SampleRandom
from eqm.sampling import Sampling
from eqm.tasks import generate


def main(
    model: str = "fashion-mnist",
    train: str = "fashion-mnist",
    test: str = "fashion-mnist-test",
    count: int = 2000,
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0),
    epochs: int = 6,
    seed: int = 1_000_000,
    threads: int = 1,
    sheet: Path | None = None,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/quality-NAME.md.

    Args:
        model: Name or folder of a trained model.
        train: Training data of the classifier and the model.
        test: Reference data.
        count: Samples per row.
        guidance: Guidance scales, one row each.
        epochs: Training epochs of the classifier.
        seed: Seed of the noise.
        threads: CPU threads; 0 for torch's default.
        sheet: Write a picture of the first samples of every row to this file.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        count, epochs = 40, 1
    if threads:
        torch.set_num_threads(threads)
    network = eqm.from_pretrained(model)
    seen, real = whole(train), whole(test)
    classifier = train_classifier(
        seen.data, seen.classes, num_classes=seen.num_classes, epochs=epochs, batch_size=128
    )
    sampling = Sampling.of(network.metadata)
    others = real[torch.arange(count, len(real))]
    reference = Moments.of(embed(classifier, others.data))
    labels = torch.arange(count) % seen.num_classes
    chosen = torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))[:count]

    def row(name: str, images: Tensor, classes: Tensor, nfe: str, seconds: str) -> None:
        features = embed(classifier, images)
        right = accuracy(classifier, images, classes)
        distance = frechet_distance(Moments.of(features), reference)
        spread = diversity(features, classes)
        print(
            f"| {name} | {right:.3f} | {distance:.2f} | {spread:.2f} | {nfe} | {seconds} |",
            flush=True,
        )

    called = Path(model).name
    with record(f"quality-{called}", f"Samples of {called}", keep=not quick):
        print(
            f"{model}: {replace(sampling, multistep_coefficients=())}, with "
            f"{len(sampling.multistep_coefficients)} fitted steps at the stored guidance. "
            f"{count} samples per row. Frechet distance to {len(others)} test pictures "
            f"in {reference.mean.numel()} features of a classifier trained for {epochs} epochs.\n"
        )
        print("| | accuracy | Frechet distance | diversity | NFE | seconds |\n" + "|---" * 6 + "|")
        row("training pictures", seen.data[chosen], seen.classes[chosen], "", "")
        row("test pictures", real.data[:count], real.classes[:count], "", "")
        sheets = []
        for scale in guidance:
            since = time.perf_counter()
            ends = generate(network, labels, seed=seed, sampling=sampling.but(guidance=scale))
            seconds = time.perf_counter() - since
            mean = ends.nfe.float().mean().item()
            pictures = ends.x.clamp(-1, 1)  # as they are shown and saved
            row(f"samples, guidance {scale:g}", pictures, labels, f"{mean:.1f}", f"{seconds:.0f}")
            sheets.append(pictures[: 4 * seen.num_classes])
        if sheet is not None:
            grid(torch.cat(sheets), columns=seen.num_classes, scale=2).save(sheet)


def whole(name: str) -> Images:
    """A whole data set in memory."""
    source = open_source(DataConfig(name))
    rows = torch.arange(len(source))
    data = source.batch(rows, SampleRandom(0, rows))
    return Images(source.name, data, source.labels, source.num_classes)


def diversity(features: Tensor, labels: Tensor) -> float:
    """The mean distance between two feature vectors of one class."""
    distances = []
    for label in labels.unique():
        mine = features[labels == label].double()
        distances.append(torch.pdist(mine).mean())
    return torch.stack(distances).mean().item()


if __name__ == "__main__":
    tyro.cli(main)
