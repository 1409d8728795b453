"""Anomaly detection by models of one class of Fashion-MNIST, beside baselines.

    python benchmarks/one_class.py --prefix runs/one-class

Ten small models of one class each, PREFIX-0 to PREFIX-9. Missing models are trained first, half a minute
each. The baselines see the training pictures of the model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from scorers import Cached, baselines, rows_of
from timing import record

from eqm.data import DataConfig, Source, open_source, split
from eqm.metrics import auroc
from eqm.models import UNetConfig
from eqm.recipes import RECIPES
from eqm.tasks import EqmDetector
from eqm.train import train


def main(
    prefix: str = "runs/one-class",
    count: int = 333,
    references: int = 5000,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/one-class.md.

    Args:
        prefix: Prefix of the model folders.
        count: Test pictures of the class; a sixth as many of every other class.
        references: Training pictures for the baselines.
        threads: CPU threads.
        quick: Only check that it runs, with the first two classes; write nothing.
    """
    if quick:
        count, references = 12, 100
    torch.set_num_threads(threads)
    with record("one-class", "Anomaly detection by models of one class", keep=not quick):
        classes(prefix, count, references, 2 if quick else 10)


def classes(prefix: str, count: int, references: int, models: int) -> None:
    """Prints the AUROC of each class against the other nine."""
    test = open_source(DataConfig("fashion-mnist-test"))
    assert test.labels is not None
    of_class = [(test.labels == k).nonzero().flatten().tolist() for k in range(10)]
    names = ["loss", "losses", "residuals", "combined"]
    areas: dict[str, list[float]] = {}
    for k in range(models):
        settings = DataConfig("fashion-mnist", val_fraction=0.1, classes=(str(k),), labels=False)
        known, held = split(open_source(settings), settings.val_fraction)
        folder = Path(f"{prefix}-{k}")
        if not (folder / "model.safetensors").exists():
            learn(k, settings, known, folder)
        network = Cached(folder)
        normal = rows_of(test, of_class[k][:count])
        others = [row for j in range(10) if j != k for row in of_class[j][: count // 6]]
        anomalous, fresh = rows_of(test, others), rows_of(held, range(min(len(held), 2 * count)))
        scorers = {f"`{n}`": EqmDetector(network, n).fit(fresh).score_samples for n in names}
        scorers |= baselines(rows_of(known, range(min(len(known), references))))
        for name, score in scorers.items():
            areas.setdefault(name, []).append(auroc(score(normal), score(anomalous)))
    print(
        f"{models} models, each of one class of Fashion-MNIST: {count} test pictures of the class against "
        f"{count // 6} of every other class. AUROC.\n"
    )
    print(
        "| score | "
        + " | ".join(map(str, range(models)))
        + " | mean |\n|---"
        + "|---" * models
        + "|---|"
    )
    for name, found in areas.items():
        print(f"| {name} | " + " | ".join(f"{a:.3f}" for a in [*found, np.mean(found)]) + " |")
    print()


def learn(k: int, settings: DataConfig, known: Source, folder: Path) -> None:
    """Trains a small model of one class on 25,600 images."""
    recipe = RECIPES["fashion-mnist"]
    config = replace(
        recipe,
        name=f"one-class-{k}",
        data=settings,
        model=UNetConfig(
            shape=(1, 28, 28), patch=2, width=24, multipliers=(1, 2), blocks=1, positions=True
        ),
        optimizer=replace(recipe.optimizer, warmup=2000, ema_halflife=2500),
        images=25_600,
        batch_size=64,
        compile="off",
        threads=torch.get_num_threads(),
        eval_every=0,
    )
    for _ in train(config, known, folder):
        pass


if __name__ == "__main__":
    tyro.cli(main)
