"""Optimizers, schedules and learning rates on the digits, for the same number of images.

    python benchmarks/optimizers.py --images 100000 --seeds 0 1

Every run is the recipe `digits` with the settings of its row. Measured for EMA weights: the validation loss,
with the same noise and gamma for all runs; the accuracy, the fraction of samples that a classifier assigns
to their label; and the Frechet distance between samples with the labels of one half of the digits and the
other half, in the features of that classifier.
"""

from __future__ import annotations

import tempfile
import time
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Literal

import torch
import tyro
from timing import record
from torch import nn

from eqm.data import digits
from eqm.features import accuracy, embed, train_classifier
from eqm.metrics import Moments, frechet_distance
from eqm.randomness import SampleRandom
from eqm.recipes import RECIPES
from eqm.tasks import generate
from eqm.train import OptimizerConfig, TrainConfig, start, train
from eqm.train.ema import update_average

REPEATS = 16
"""Draws of noise and gamma per validation image."""


def main(
    images: int = 100_000,
    names: tuple[Literal["adamw", "muon"], ...] = ("adamw",),
    schedules: tuple[str, ...] = ("constant",),
    learning_rates: tuple[float, ...] = (4e-3,),
    ema_halflives: tuple[float, ...] = (1_000, 3_000, 10_000),
    seeds: tuple[int, ...] = (0,),
    quick: bool = False,
) -> None:
    """Prints the table, one row per combination and half-life, and writes it to results/optimizers-new.md.

    Args:
        images: Images per run.
        names: Optimizers.
        schedules: Schedules; a colon and the cooldown may follow, such as sqrt:0.2.
        learning_rates: Peak learning rates.
        ema_halflives: Half-lives of the EMA weights, all measured in the same run.
        seeds: Seeds; one run each, all in the same row.
        quick: Only check that it runs, with few images; write nothing.
    """
    if quick:
        images, ema_halflives = 2_000, ema_halflives[:1]
    recipe = replace(RECIPES["digits"], images=images)
    torch.set_num_threads(recipe.threads)
    seen, val_data = digits().split(recipe.data.val_fraction or 0.2)
    classifier = train_classifier(seen.data, seen.classes, num_classes=seen.num_classes)
    first, second = digits().split(0.5)
    reference = Moments.of(embed(classifier, second.data))

    def loss(model: nn.Module) -> float:
        data, labels = (t.repeat_interleave(REPEATS, 0) for t in (val_data.data, val_data.classes))
        draws = SampleRandom(12345, torch.arange(len(data)))
        noise, gamma = draws.normal("noise", data.shape[1:]), draws.uniform("gamma")
        with torch.no_grad():
            each = recipe.make_objective().loss_at(model, data, labels, noise=noise, gamma=gamma)
        return each.double().mean().item()

    def measure(model: nn.Module) -> tuple[str, str, str]:
        drawn = generate(model, first.classes, sampling=recipe.sampling).x.nan_to_num()
        distance = frechet_distance(Moments.of(embed(classifier, drawn)), reference)
        right = 100 * accuracy(classifier, drawn, first.classes)
        return f"{loss(model):.4f}", f"{right:.1f}", f"{distance:.3f}"

    def run(config: TrainConfig) -> tuple[list[tuple[str, str, str]], float]:
        began = time.process_time()
        averages = [deepcopy(start(config, torch.device("cpu")).average) for _ in ema_halflives]
        with tempfile.TemporaryDirectory() as folder:
            for step in train(config, seen, folder):
                for average, halflife in zip(averages, ema_halflives, strict=True):
                    update_average(
                        average,
                        step.state.model,
                        images=step.images,
                        batch=step.batch,
                        halflife=halflife,
                    )
        seconds = time.process_time() - began
        return [measure(average) for average in averages], seconds

    with record("optimizers-new", "Optimizers on the digits", keep=not quick):
        print(
            f"Recipe digits, {images:,} images, batch {recipe.batch_size}, seeds {', '.join(map(str, seeds))}.\n"
        )
        columns = (
            *("optimizer", "schedule", "learning rate", "half-life"),
            *("val_loss", "accuracy, %", "Frechet distance", "CPU seconds"),
        )
        print(f"| {' | '.join(columns)} |")
        print("|---" * len(columns) + "|", flush=True)
        for name, schedule, rate in product(names, schedules, learning_rates):
            shape, _, cooldown = schedule.partition(":")
            settings = OptimizerConfig(
                name=name,
                schedule=shape,  # type: ignore[arg-type]
                cooldown=float(cooldown or 1),
                learning_rate=rate,
                warmup=recipe.optimizer.warmup,
            )
            ends = [run(replace(recipe, optimizer=settings, seed=seed)) for seed in seeds]
            spent = sum(seconds for _, seconds in ends) / len(ends)
            for halflife, *measured in zip(ema_halflives, *(rows for rows, _ in ends), strict=True):
                cells = (", ".join(values) for values in zip(*measured, strict=True))
                row = (name, schedule, f"{rate:g}", f"{halflife:g}", *cells, f"{spent:.0f}")
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
