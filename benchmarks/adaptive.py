"""What adaptive compute saves: a stop for every sample against 250 steps for all.

    python benchmarks/adaptive.py --model /tmp/digits
    python benchmarks/adaptive.py --model runs/fashion --train train.npz --test test.npz

Both descend with the same small steps from the same noise; with the stop, samples that end make
room for others (`eqm.stream`). Quality is the Frechet distance to real images in the features of a
classifier trained on others.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import tyro
from timing import heading

import eqm
from eqm.data import open_images
from eqm.descent import in_order
from eqm.metrics import Moments, embed, frechet_distance, train_classifier
from eqm.tasks import starting_noise


def main(
    model: Path,
    train: str = "digits",
    test: str | None = None,
    count: int = 1000,
    batch: int = 100,
    steps: int = 250,
    path: float = 0.5,
    ratios: tuple[float, ...] = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05),
    epochs: int = 20,
    threads: int = 0,
) -> None:
    """Prints the table.

    Args:
        model: Folder of a trained model.
        train: Data for the classifier.
        test: Data to be like; by default those of `train` that are held out.
        count: Samples.
        batch: Samples at a time.
        steps: Steps of the fixed descent.
        path: Total path of the fixed descent.
        ratios: Shares of its first gradient norm at which a sample stops.
        epochs: Passes over the data of the classifier.
        threads: CPU threads; 0 leaves it to torch.
    """
    if threads:
        torch.set_num_threads(threads)
    field = eqm.from_pretrained(model)
    images = open_images(train)
    seen, held_out = images.split(0.5) if test is None else (images, open_images(test))
    classifier = train_classifier(
        seen.data, seen.classes, num_classes=seen.num_classes, epochs=epochs
    )
    reference = Moments.of(embed(classifier, held_out.data))
    labels = held_out.classes[torch.arange(count) % len(held_out.classes)]
    noise = starting_noise(held_out.shape, seeds=range(count))
    rule = eqm.GradientDescent(path / steps)

    def measured(stop: eqm.descent.Stop | None) -> tuple[float, float, float]:
        began = time.perf_counter()
        ends = in_order(
            eqm.stream(
                field,
                noise,
                labels.tolist(),
                rule=rule,
                stop=stop,
                batch_size=batch,
                max_steps=steps,
            )
        )
        seconds = time.perf_counter() - began
        distance = frechet_distance(Moments.of(embed(classifier, ends.x)), reference)
        return ends.evaluations.double().mean().item(), seconds, distance

    measured(eqm.Evaluations(5))  # warm
    print(heading())
    every, seconds, distance = measured(None)
    print(
        f"{count} samples, {batch} at a time, path {path:g} in {steps} steps.\n\n"
        "| stop | evaluations | share | seconds | share | Frechet distance | of the fixed |\n"
        "|---|---|---|---|---|---|---|\n"
        f"| none | {every:.0f} | 100 % | {seconds:.1f} | 100 % | {distance:.3f} | 100 % |"
    )
    for ratio in ratios:
        spent, took, found = measured(eqm.RelativeGradientNorm(ratio))
        print(
            f"| gradient at {ratio:g} | {spent:.0f} | {100 * spent / every:.0f} % | {took:.1f} | "
            f"{100 * took / seconds:.0f} % | {found:.3f} | {100 * found / distance:.1f} % |",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
