"""Whether the samples of `moving-digits` are digits that move at constant speed, and continue given frames.

    python benchmarks/moving_digits.py --model moving-digits

The classifier is that of mnist-5k which comes with eqm. It sees a frame cut out around the centre of mass of the
digit. Real videos are of digits that neither the classifier nor the model has seen. The speed is that of the
centre of mass.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import tyro
from timing import record
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from eqm.data import DataConfig, open_source, split
from eqm.drawings import drawn
from eqm.features import Classifier
from eqm.models import from_pretrained
from eqm.pictures import animate, grid
from eqm.randomness import SampleRandom
from eqm.recipes import RECIPES
from eqm.tasks import Inpaint, generate, restore

GIVEN = 4
"""Frames from which a video is continued."""


def main(
    model: str = "moving-digits",
    count: int = 300,
    continued: int = 100,
    steps: int = 25,
    sheet: Path | None = None,
    movie: Path | None = None,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/.

    Args:
        model: Name or folder of the model.
        count: Samples, of each digit in turn.
        continued: Real videos whose first frames are continued.
        steps: Evaluations for a continuation.
        sheet: A .png of real videos, samples and continuations.
        movie: A .gif of samples.
        threads: CPU threads.
        quick: Only check that it runs; write nothing to results/.
    """
    torch.set_num_threads(threads)
    if quick:
        count, continued, steps = 10, 4, 2
    source = open_source(DataConfig("moving-digits"))
    _, unseen = split(source, RECIPES["moving-digits"].data.val_fraction)
    rows = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(0))[:count]
    real = unseen.batch(rows, SampleRandom(1, rows))
    assert unseen.labels is not None
    wanted = unseen.labels[rows]
    field = from_pretrained(model)
    asked = torch.arange(count) % 10
    since = time.process_time()
    samples = generate(field, labels=asked, count=count).x
    seconds = (time.process_time() - since) / count
    known = torch.ones(real.shape[2:])
    known[GIVEN:] = 0
    what = Inpaint(known.bool(), 4)
    truth = real[:continued]
    filled = restore(field, what(truth), what, steps=steps).x
    classifier = Classifier.load("mnist-5k")
    with record("moving-digits", "Digits that move", keep=not quick):
        print(
            f"\n{count} samples of {model}, {seconds:.2f} s of CPU time each, and {continued} continuations of "
            f"{GIVEN} frames, {steps} evaluations each and no label.\n\n| videos | recognised in the first frame "
            "| in the last | speed, pixels a frame, 10 %, 50 %, 90 % | its relative deviation in a video, "
            "median | change of the motion from frame to frame, median |\n|---|---|---|---|---|---|"
        )
        for name, videos, digits in (
            ("real", real, wanted),
            ("samples", samples, asked),
            ("continued", filled, wanted[:continued]),
        ):
            first, last = (
                (seen(classifier, videos[:, :, k]) == digits).float().mean() for k in (0, -1)
            )
            speed, deviation, change = motion(videos)
            print(
                f"| {name} | {first:.3f} | {last:.3f} | {said(speed)} | {deviation.median():.3f} | "
                f"{change.median():.3f} |"
            )
        off = (centres(filled) - centres(truth)).norm(dim=2)
        still = (centres(truth)[:, GIVEN - 1 : GIVEN] - centres(truth)).norm(dim=2)
        print(
            f"\nThe centre of a continued digit is {off[:, GIVEN:].median():.2f} pixels from the true one in the "
            f"median ({off[:, -1].median():.2f} in the last frame); of a digit that stays where it was last "
            f"given, {still[:, GIVEN:].median():.2f} ({still[:, -1].median():.2f})."
        )
    if sheet is not None:
        order = [k for k in range(10) if (wanted == k).any()]
        some = torch.stack([real[wanted == k][0] for k in order][:4])
        shown = torch.cat([some, samples[:10], truth[:3].repeat_interleave(2, 0)])
        shown[15::2] = filled[:3]
        grid(drawn(shown), columns=1, scale=2).save(sheet)
    if movie is not None:
        frames = samples[:20].unbind(2)
        animate((grid(frame, columns=10, scale=2) for frame in frames), movie)


def centres(videos: Tensor) -> Tensor:
    """The centre of mass of the bright pixels in each frame, (N, T, 2), in pixels right and down."""
    mass = (videos[:, 0] + 1).clamp(min=0)
    mass = mass * (mass > 0.3)
    total = mass.sum((2, 3)).clamp(min=1e-6)
    down, right = (torch.arange(side, dtype=torch.float32) for side in mass.shape[2:])
    return torch.stack([(mass.sum(2) @ right) / total, (mass.sum(3) @ down) / total], 2)


def motion(videos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each video the mean speed, its standard deviation over the mean, and the median size of the change of
    the velocity from frame to frame."""
    steps = centres(videos).diff(dim=1)  # (N, T - 1, 2)
    speed = steps.norm(dim=2)
    change = steps.diff(dim=1).norm(dim=2).median(1).values
    return speed.mean(1), speed.std(1) / speed.mean(1).clamp(min=1e-6), change


@torch.no_grad()
def seen(classifier: Classifier, frames: Tensor) -> Tensor:
    """The digit that the classifier sees in each frame (N, 1, 32, 32), (N,)."""
    side = frames.shape[-1]
    middle = centres(frames[:, :, None])[:, 0] * (2 / side) - 1 + 1 / side  # -1..1
    scale = torch.eye(2).expand(len(frames), 2, 2) * (20 / side)
    where = affine_grid(
        torch.cat([scale, middle[:, :, None]], 2), [len(frames), 1, 28, 28], align_corners=False
    )
    return classifier(grid_sample(frames + 1, where, align_corners=False) - 1).argmax(1)


def said(values: Tensor) -> str:
    """The deciles 1, 5 and 9."""
    levels = values.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return ", ".join(f"{level:.2f}" for level in levels)


if __name__ == "__main__":
    tyro.cli(main)
