"""The options of the transformer's blocks at equal compute: validation loss by images and by time.

    python benchmarks/blocks.py --seeds 0 1

Every run has the data, optimizer and batches of the recipe, and one small transformer. The rows are the
blocks of the paper, each option alone, and all four. All see the same images with the same noise.
Measured for the averaged weights: the validation loss, with one noise and gamma for all; and the CPU
seconds of the training steps. Equal compute: the loss at the time that the paper's blocks take for their
whole run, between two measurements on a straight line.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import tyro
from timing import record
from torch import nn

from eqm.data import open_source, split
from eqm.models import TransformerConfig
from eqm.randomness import SampleRandom
from eqm.recipes import RECIPES
from eqm.train import TrainConfig, train

OPTIONS = ("rotary", "rms_norm", "qk_norm", "swiglu")
ROWS: dict[str, dict[str, Any]] = {
    "paper": {},
    **{name.replace("_", " "): {name: True} for name in OPTIONS},
    "all four": dict.fromkeys(OPTIONS, True),
}
MEASURED = 8
"""Measurements of a run, evenly spaced in images."""


def main(
    recipe: str = "mnist-5k",
    path: str = "",
    images: int = 100_000,
    patch: int = 4,
    width: int = 96,
    depth: int = 6,
    heads: int = 3,
    learning_rate: float = 3e-3,
    halflife: int = 4_000,
    validated: int = 500,
    rows: tuple[str, ...] = tuple(ROWS),
    seeds: tuple[int, ...] = (0, 1),
    quick: bool = False,
) -> None:
    """Prints the table, and writes it to results/blocks.md.

    Args:
        recipe: Recipe of the data and the training.
        path: Other data for the recipe.
        images: Images of a run.
        patch: Side of a patch.
        width: Channels of a token.
        depth: Blocks.
        heads: Attention heads.
        learning_rate: Peak learning rate.
        halflife: Half-life of the averaged weights, in images.
        validated: Validation images.
        rows: Which blocks: paper, rotary, rms norm, qk norm, swiglu, all four.
        seeds: Seeds, one run each.
        quick: Only check that it runs, with few images; write nothing.
    """
    if quick:
        images, validated, depth, seeds = 2_048, 50, 1, seeds[:1]
    settings = RECIPES[recipe]
    data = replace(settings.data, path=path) if path else settings.data
    source = open_source(data)
    seen, held_out = split(source, data.val_fraction or 0.1)
    sizes = TransformerConfig(
        shape=source.shape,
        num_classes=source.num_classes,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
    )
    optimizer = replace(
        settings.optimizer, learning_rate=learning_rate, warmup=images // 20, ema_halflife=halflife
    )
    settings = replace(
        settings,
        images=images,
        optimizer=optimizer,
        eval_every=0,
        compile="off",
        threads=1,
        precision="float32",
        checkpoint_every=images,
    )
    torch.set_num_threads(1)
    places = torch.arange(min(validated, len(held_out)))
    draws = SampleRandom(12345, places)
    check, labels = held_out.batch(places, draws), held_out.labels
    labels = None if labels is None else labels[places]
    noise, gamma = draws.normal("noise", source.shape), draws.uniform("gamma")

    @torch.no_grad()
    def loss(model: nn.Module) -> float:
        each = settings.make_objective().loss_at(model, check, labels, noise=noise, gamma=gamma)
        return each.double().mean().item()

    def run(config: TrainConfig) -> list[tuple[float, float]]:
        """CPU seconds so far and the validation loss, at each measurement."""
        points, spent, began = [], 0.0, time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            for step in train(config, seen, Path(folder)):
                if step.images >= images * (len(points) + 1) // MEASURED:
                    spent += time.process_time() - began
                    points.append((spent, loss(step.state.average)))
                    began = time.process_time()
        return points

    with record("blocks", "Blocks of the transformer", keep=not quick):
        print(
            f"Recipe {recipe}, {images:,} images in batches of {settings.batch_size}, patch {patch}, "
            f"width {width}, depth {depth}, {heads} heads, {optimizer.name} at {learning_rate:g}, seeds "
            f"{', '.join(map(str, seeds))}; validation loss of {len(check)} images.\n"
        )
        print("| blocks | val_loss at half | at the end | at equal time | CPU seconds |")
        print("|---|---|---|---|---|", flush=True)
        budgets: dict[int, float] = {}
        for name in ROWS:
            if name not in rows:
                continue
            model = replace(sizes, **ROWS[name])
            ends = {seed: run(replace(settings, model=model, seed=seed)) for seed in seeds}
            if not budgets:  # the first row is the reference
                budgets = {seed: points[-1][0] for seed, points in ends.items()}
            columns = (
                [points[len(points) // 2 - 1][1] for points in ends.values()],
                [points[-1][1] for points in ends.values()],
                [at(budgets[seed], points) for seed, points in ends.items()],
            )
            cells = [", ".join(f"{value:.4f}" for value in column) for column in columns]
            seconds = mean(points[-1][0] for points in ends.values())
            print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def at(seconds: float, points: list[tuple[float, float]]) -> float:
    """The loss after so many seconds, on the line between two points; the last one after their end."""
    for (left, before), (right, after) in pairwise(points):
        if left <= seconds <= right:
            return before + (after - before) * (seconds - left) / (right - left)
    return points[-1][1]


if __name__ == "__main__":
    tyro.cli(main)
