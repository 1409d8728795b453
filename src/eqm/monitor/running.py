"""Monitoring a run: progress bar, log, callbacks and trackers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from eqm.data import Source
from eqm.devices import pick_device
from eqm.monitor.callbacks import Callback, Evaluation, Metrics, Previews, ValidationLoss
from eqm.monitor.log import Curves, Log
from eqm.monitor.throughput import Throughput, Work, duration, work_of
from eqm.monitor.trackers import Tracker, open_tracker
from eqm.train.config import TrainConfig
from eqm.train.distributed import is_main, world_size
from eqm.train.loop import Progress as TrainingProgress
from eqm.train.state import TrainingState

T = TypeVar("T")

MIN_INTERVAL, MAX_INTERVAL = 1.0, 10.0
"""Seconds between two lines of the log, at the start and from the third hour on."""
FIRST_PREVIEW = 60.0
"""Seconds of training before the first preview; the next ones follow at twice the time each."""
ESTIMATE_AT = 3
"""The line of the log after which the bar prints the time left; the first ones are slow."""


@dataclass(frozen=True)
class Monitor:
    """The callbacks and trackers of a run."""

    callbacks: tuple[Callback, ...] = ()
    """Called in turn every `every` images and at the end."""
    every: int = 0
    """Images between two calls; 0 means never."""
    trackers: tuple[Tracker, ...] = ()
    """They get all numbers and pictures, like the log."""
    work: Work | None = None
    """The numbers for MFU; None to leave it out."""
    early: Callback | None = None
    """Also called after a minute of training, then after 2, 4, 8, ... minutes, until `every` images
    are seen. It is called in single-process runs alone, because the times of processes differ."""


def make_monitor(
    config: TrainConfig,
    folder: Path | str,
    val_data: Source | None = None,
    *,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    keep_best: Callable[[TrainingState, float], object] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Monitor:
    """The monitor of a run in `folder`, to pass to `run`.

    Every `config.eval_every` images it draws samples, measures the loss on `val_data`, and calls
    `evaluate(field)` with the averaged weights for numbers of your own. `keep_best(state, loss)` is
    called with each validation loss. `decode` turns samples into pictures. This measures the speed of
    the device, which takes a fraction of a second.

    Raises ValueError if a package that `config.trackers` needs is missing.
    """
    every = config.eval_every
    callbacks: list[Callback] = []
    previews = Previews(config, folder, decode) if every else None
    if previews is not None:
        callbacks.append(previews)
        if val_data is not None:
            callbacks.append(ValidationLoss(config, val_data, keep_best))
        if evaluate is not None:
            callbacks.append(Evaluation(evaluate))
    trackers = [open_tracker(name, folder, config) for name in config.trackers if is_main()]
    if every and find_spec("matplotlib"):
        trackers.append(Curves(folder, every=every))
    work = None
    if is_main():
        with suppress(ValueError):  # the cost of a network that is not registered is unknown
            work = work_of(config, pick_device(config.device))
    return Monitor(tuple(callbacks), every, tuple(trackers), work, previews)


def monitored(
    steps: Iterable[TrainingProgress],
    *,
    total: int,
    monitor: Monitor,
    say: Callable[[str], None] | None = None,
) -> Iterator[TrainingProgress]:
    """The same steps, after their numbers went to the trackers of `monitor`.

    Trackers get numbers every second at first, later every ten, and after each call of the callbacks,
    whose time does not count as training. Only those of the first process get them. If a callback or
    tracker fails, `say` gets a sentence once for each reason (by default it goes to standard error),
    and training goes on.
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

    def call(callbacks: Iterable[Callback], progress: TrainingProgress) -> Metrics:
        since = time.perf_counter()
        metrics = [attempt(callback, callback, progress) or Metrics() for callback in callbacks]
        seconds = time.perf_counter() - since
        numbers = {k: v for metrics in metrics for k, v in metrics.numbers.items()}
        pictures = {k: v for metrics in metrics for k, v in metrics.pictures.items()}
        return Metrics(numbers | {"callback_seconds": seconds}, pictures)

    throughput, began, position = Throughput(monitor.work), time.perf_counter(), -1
    early = () if monitor.early is None or world_size() > 1 else (monitor.early,)
    first, preview_at = began, FIRST_PREVIEW
    try:
        for progress in steps:
            before = progress.images - progress.batch
            if before != position:  # the first step, or the run went back to a checkpoint
                for tracker in trackers:
                    attempt(tracker, tracker.start, before)
                first = time.perf_counter()  # the first step may have compiled for minutes
            position = progress.images
            done = position >= total
            throughput.add(progress)
            due = monitor.every and (position // monitor.every > before // monitor.every or done)
            now = time.perf_counter()
            preview = early and not due and position < monitor.every and now - first >= preview_at
            interval = min(max(MIN_INTERVAL, (now - began) / 1000), MAX_INTERVAL)
            if due or done or preview or throughput.seconds >= interval:
                numbers = throughput.measure()
                metrics = Metrics()
                if due or preview:
                    metrics = call(monitor.callbacks if due else early, progress)
                if preview:
                    preview_at *= 2
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
    """The last of `steps`, after all of them, with a bar of images/s, loss and time left.

    These numbers and more go to `log.jsonl` in `folder` and to the trackers of `monitor`. The result
    is None if there were no steps, because the run was complete.
    """
    monitor = monitor or Monitor()
    last = None
    with Bar(total, title) as bar:
        ours: tuple[Tracker, ...] = (bar, Log(folder), *monitor.trackers)
        everything = replace(monitor, trackers=ours)
        for progress in monitored(steps, total=total, monitor=everything, say=bar.say):
            last = progress
        if last is not None and last.state.stopping and is_main():
            bar.say("stopped early: the validation loss no longer falls; see the folder best")
    return last


class Bar(Tracker):
    """A tracker and context manager that shows a progress bar on standard error.

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
        self.started, self.lines = False, 0

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if not self.started and failure[0] is None:
            self.bar.update(self.task, completed=self.total, note="complete already")
        self.bar.stop()

    def say(self, sentence: str) -> None:
        """Prints a sentence above the bar."""
        self.bar.console.print(sentence, style="yellow", highlight=False, markup=False)

    def start(self, images: int) -> None:
        """Continues from here."""
        self.started = True
        self.bar.update(self.task, completed=images)

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Shows throughput, loss, the time left (once) and each validation loss."""
        note = f"{numbers['images_per_second']:,.0f} images/s  loss {numbers['loss']:.4f}"
        if "val_loss" in numbers:
            self.say(f"{images:>9,} images: validation loss {numbers['val_loss']:.4f}")
        self.lines += 1
        if self.lines == ESTIMATE_AT and images < self.total:
            left = duration((self.total - images) / numbers["images_per_second"])
            self.say(f"about {left} left, at {numbers['images_per_second']:,.0f} images/s")
        self.bar.update(self.task, completed=images, note=note)
