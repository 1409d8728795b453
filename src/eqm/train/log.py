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
    """The last of `steps`, after showing them all: images/s, loss and time left.

    The same numbers go to `log.jsonl` in `folder`. None when there were no steps, because the run
    was complete before.
    """
    folder = Path(folder)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:>9,.0f}/{task.total:,.0f} images  {task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    last, seen, since = None, 0, time.monotonic()
    losses = []
    with bar:
        task = bar.add_task(title, total=total, note="")
        for last in steps:
            seen, now = seen + last.batch, time.monotonic()
            losses.append(last.loss)
            if now - since < INTERVAL and last.images < total:
                continue
            rate, loss = seen / (now - since), torch.stack(losses).mean().item()
            bar.update(task, completed=last.images, note=f"{rate:,.0f} images/s  loss {loss:.4f}")
            line = {"images": last.images, "loss": loss, "images_per_second": rate}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            losses, seen, since = [], 0, now
        if last is None:
            bar.update(task, completed=total, note="done before")
    return last
