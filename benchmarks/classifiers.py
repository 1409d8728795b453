"""Trains the classifiers that come with the package, and measures their accuracy.

    python benchmarks/classifiers.py digits
    python benchmarks/classifiers.py mnist-5k
    python benchmarks/classifiers.py fashion-mnist

Each is written to src/eqm/features/weights, where `eqm.features.open_features` finds it as
classifier:NAME. The validation set is the one of the recipe of that name; for Fashion-MNIST it is the
test set.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import torch
import tyro
from quality import whole

from eqm.data import Images
from eqm.features import accuracy, train_classifier
from eqm.recipes import RECIPES

WEIGHTS = Path(__file__).parents[1] / "src" / "eqm" / "features" / "weights"


def main(
    name: tyro.conf.Positional[Literal["digits", "mnist-5k", "fashion-mnist"]], threads: int = 1
) -> None:
    """Trains and writes one classifier.

    Args:
        name: The training data.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    seen, val_data = parts(name)
    large = name == "fashion-mnist"
    settings = {"epochs": 6, "batch_size": 128} if large else {"epochs": 20, "batch_size": 64}
    since = time.process_time()
    classifier = train_classifier(seen.data, seen.classes, num_classes=seen.num_classes, **settings)
    seconds = time.process_time() - since
    classifier.metadata = {
        "data": seen.name,
        "images": len(seen),
        "val_data": val_data.name,
        "val_images": len(val_data),
        "val_accuracy": round(accuracy(classifier, val_data.data, val_data.classes), 4),
        "training": settings,
    }
    classifier.save(WEIGHTS / name)
    print(f"{classifier.metadata} in {seconds:.0f} s of CPU time: written to {WEIGHTS / name}")


def parts(name: str) -> tuple[Images, Images]:
    """The training set and the validation set."""
    if fraction := RECIPES[name].data.val_fraction:
        return whole(name).split(fraction)
    return whole(name), whole(f"{name}-test")


if __name__ == "__main__":
    tyro.cli(main)
