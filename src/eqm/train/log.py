"""Seeing a run: a progress bar, and a line a second or so in `log.jsonl`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from eqm.train.loop import Progress as TrainingProgress

INTERVAL = 1.0
"""Seconds between two looks at the loss; each waits for the device."""


def follow(
    steps: Iterable[TrainingProgress], *, total: int, folder: Path | str, title: str = "train"
) -> TrainingProgress | None:
    """The last of `steps`, after showing them all: images/s, loss and time left, and the same
    numbers in `log.jsonl`.

    None when there were no steps, because the run was complete before.
    """
    folder = Path(folder)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:>9,.0f}/{task.total:,.0f} images  {task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    last, first_images, began, looked = None, None, time.monotonic(), 0.0
    losses = []
    with bar:
        task = bar.add_task(title, total=total, note="")
        for last in steps:
            now = time.monotonic()
            if first_images is None:
                first_images, began = last.images, now
            losses.append(last.loss)
            if now - looked < INTERVAL and last.images < total:
                continue
            rate = (last.images - first_images) / max(now - began, 1e-9)
            loss = torch.stack(losses).mean().item()
            looked, losses = now, []
            bar.update(task, completed=last.images, note=f"{rate:,.0f} images/s  loss {loss:.4f}")
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "log.jsonl").open("a") as log:
                log.write(
                    json.dumps({"images": last.images, "loss": loss, "images_per_second": rate})
                    + "\n"
                )
    return last
