"""Trains the classifiers that come with the package and says how well they do on held-out images.

    python benchmarks/classifiers.py digits
    python benchmarks/classifiers.py mnist-5k
    python benchmarks/classifiers.py fashion-mnist

Each is written into src/eqm/features/weights with that number: `eqm.features.open_features` finds it
as classifier:NAME. Both sets of digits are split as the recipes of their names split them; Fashion-MNIST
comes with its test part.
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
    """Trains one and writes it.

    Args:
        name: What it learns to tell apart.
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
    print(f"{classifier.metadata} in {seconds:.0f} s of processor time: kept in {WEIGHTS / name}")


def parts(name: str) -> tuple[Images, Images]:
    """What the classifier sees, and what it is judged by."""
    if val_data := RECIPES[name].data.val_fraction:
        return whole(name).split(val_data)
    return whole(name), whole(f"{name}-test")


if __name__ == "__main__":
    tyro.cli(main)
