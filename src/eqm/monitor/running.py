"""Seeing a run: a bar, a log, and what is watched at intervals."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from eqm.data import Source
from eqm.devices import pick_device
from eqm.monitor.callbacks import Callback, Metrics, Tracker
from eqm.monitor.curves import Curves
from eqm.monitor.log import Log
from eqm.monitor.previews import Previews
from eqm.monitor.throughput import Throughput, Work, work_of
from eqm.monitor.trackers import open_tracker
from eqm.monitor.validation import Evaluation, ValidationLoss
from eqm.train.config import TrainConfig
from eqm.train.distributed import is_main
from eqm.train.loop import Progress as TrainingProgress
from eqm.train.state import TrainingState

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between two lines at first; each waits for the device."""
LONGEST = 10.0
"""Seconds between two lines from the third hour on."""


@dataclass(frozen=True)
class Monitor:
    """What is seen of a run: by whom it is looked at, how often, and who is told."""

    callbacks: tuple[Callback, ...] = ()
    """Called in turn every so many images and at the end."""
    every: int = 0
    """Images between two such looks; 0 never looks."""
    trackers: tuple[Tracker, ...] = ()
    """Told all numbers and pictures, besides the log."""
    work: Work | None = None
    """What to compare the pace with, if anything."""


def make_monitor(
    config: TrainConfig,
    folder: Path | str,
    val_data: Source | None = None,
    *,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    keep_best: Callable[[TrainingState, float], object] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Monitor:
    """All there is to see of a run in `folder`: call it before training, pass it to `run`.

    Every `config.eval_every` images it draws samples, measures the loss on `val_data`, and calls
    `evaluate(field)` with the averaged weights for numbers of your own. `keep_best(state, loss)` is
    told each held-out loss. `decode` turns samples into pictures, where they are none. The rate of
    the device is measured here, which takes a fraction of a second.

    Raises ValueError when a package that `config.trackers` needs is missing.
    """
    every = config.eval_every
    callbacks: list[Callback] = []
    if every:
        callbacks.append(Previews(config, folder, decode))
        if val_data is not None:
            callbacks.append(ValidationLoss(config, val_data, keep_best))
        if evaluate is not None:
            callbacks.append(Evaluation(evaluate))
    trackers = [open_tracker(name, folder, config) for name in config.trackers if is_main()]
    if every and find_spec("matplotlib"):
        trackers.append(Curves(folder, every=every))
    work = work_of(config, pick_device(config.device)) if is_main() else None
    return Monitor(tuple(callbacks), every, tuple(trackers), work)


def monitored(
    steps: Iterable[TrainingProgress],
    *,
    total: int,
    monitor: Monitor,
    say: Callable[[str], None] | None = None,
) -> Iterator[TrainingProgress]:
    """The same steps, once what they come to was told to the trackers of `watch`.

    They are told at intervals of a second, growing to ten, and after each look of the watchers,
    which does not count as time of training. Trackers on other processes than the first are told
    nothing. A watcher or tracker that fails is named to `say`, standard error by default, once for
    each reason, and the run goes on.
    """
    say = say or (lambda sentence: print(sentence, file=sys.stderr))
    trackers = monitor.trackers if is_main() else ()
    failures: set[str] = set()

    def attempt(owner: object, action: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return action(*arguments)
        except (Exception, SystemExit) as error:  # the latter where the first process failed
            reason = " ".join(str(error).split()) or type(error).__name__
            name = getattr(owner, "__name__", type(owner).__name__)
            sentence = f"{name} failed ({reason}); training goes on without it"
            if sentence not in failures and is_main():
                failures.add(sentence)
                say(sentence)
            return None

    def look(progress: TrainingProgress) -> Metrics:
        since = time.perf_counter()
        metrics = [
            attempt(callback, callback, progress) or Metrics() for callback in monitor.callbacks
        ]
        seconds = time.perf_counter() - since
        numbers = {k: v for metrics in metrics for k, v in metrics.numbers.items()}
        pictures = {k: v for metrics in metrics for k, v in metrics.pictures.items()}
        return Metrics(numbers | {"watching_seconds": seconds}, pictures)

    throughput, began, position = Throughput(monitor.work), time.perf_counter(), -1
    try:
        for progress in steps:
            before = progress.images - progress.batch
            if before != position:  # the first step, or the run went back to a checkpoint
                for tracker in trackers:
                    attempt(tracker, tracker.start, before)
            position, done = progress.images, progress.images >= total
            throughput.add(progress)
            due = monitor.every and (position // monitor.every > before // monitor.every or done)
            interval = min(max(INTERVAL, (time.perf_counter() - began) / 1000), LONGEST)
            if due or done or throughput.seconds >= interval:
                numbers = throughput.look()
                metrics = look(progress) if due else Metrics()
                for tracker in trackers:
                    attempt(tracker, tracker.log, numbers | dict(metrics.numbers), position)
                    for name, path in metrics.pictures.items():
                        attempt(tracker, tracker.picture, name, path, position)
                throughput.restart()
            yield progress
    finally:
        for tracker in trackers:
            attempt(tracker, tracker.finish)


def run(
    steps: Iterable[TrainingProgress],
    *,
    total: int,
    folder: Path | str,
    monitor: Monitor | None = None,
    title: str = "train",
) -> TrainingProgress | None:
    """The last of `steps`, after showing them all: images/s, loss and time left.

    The same numbers and more go to `log.jsonl` in `folder`, and to the trackers of `watch`. None
    when there were no steps, because the run was complete before.
    """
    monitor = monitor or Monitor()
    last = None
    with Bar(total, title) as bar:
        ours: tuple[Tracker, ...] = (bar, Log(folder), *monitor.trackers)
        everything = replace(monitor, trackers=ours)
        for progress in monitored(steps, total=total, monitor=everything, say=bar.say):
            last = progress
    return last


class Bar:
    """A tracker that shows how far the run is, on standard error; a context.

    On processes other than the first it shows nothing."""

    def __init__(self, total: int, title: str = "train") -> None:
        self.total = total
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:>9,.0f}/{task.total:,.0f} images  {task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_main(),
        )
        self.task = self.bar.add_task(title, total=total, note="")
        self.started = False

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if not self.started and failure[0] is None:
            self.bar.update(self.task, completed=self.total, note="done before")
        self.bar.stop()

    def say(self, sentence: str) -> None:
        """Prints a sentence above the bar."""
        self.bar.console.print(sentence, style="yellow", highlight=False, markup=False)

    def start(self, images: int) -> None:
        """Goes on from here."""
        self.started = True
        self.bar.update(self.task, completed=images)

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Shows the pace, the loss, and the last held-out loss."""
        note = f"{numbers['images_per_second']:,.0f} images/s  loss {numbers['loss']:.4f}"
        if "val_loss" in numbers:
            self.say(f"{images:>9,} images: held-out loss {numbers['val_loss']:.4f}")
        self.bar.update(self.task, completed=images, note=note)

    def picture(self, name: str, path: Path, images: int) -> None:
        """Nothing: a bar shows none."""

    def finish(self) -> None:
        """Nothing: leaving the context ends the bar."""
