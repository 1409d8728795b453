"""Monitoring a run: progress bar, log, callbacks and trackers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
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
from eqm.files import RUN, check_folder
from eqm.monitor.callbacks import Callback, Evaluation, Metrics, Previews, ValidationLoss
from eqm.monitor.log import Curves, Log
from eqm.monitor.throughput import Throughput, Work, duration, work_of
from eqm.monitor.trackers import Tracker, open_tracker
from eqm.train.config import TrainConfig
from eqm.train.distributed import is_main, world_size
from eqm.train.loop import Progress as TrainingProgress
from eqm.train.loop import line_due
from eqm.train.state import TrainingState

T = TypeVar("T")

REFRESH = 1.0
"""Seconds between two changes of the progress bar."""
FIRST_PREVIEW = 60.0
"""Seconds of training before the first preview; the next ones follow at twice the time each."""
ESTIMATE_AT = 3
"""The change after which the bar prints the time left; the first steps are slow."""


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
    are seen. Only its pictures are used, because the log must not depend on the speed of the run. It is
    called in single-process runs alone, because the times of processes differ."""


def make_monitor(
    config: TrainConfig,
    folder: Path | str,
    val_data: Source | None = None,
    *,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    keep_best: Callable[[TrainingState, float], object] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    captions: Source | None = None,
) -> Monitor:
    """The monitor of a run in `folder`, to pass to `run`.

    Every `config.eval_every` images it draws samples, measures the loss on `val_data`, and calls
    `evaluate(field)` with the averaged weights for numbers of your own. `keep_best(state, loss)` is
    called with each validation loss. `decode` turns samples into pictures. A network of sentences draws
    those of `captions`, by default of `val_data`. This measures the speed of
    the device, which takes a fraction of a second.

    Raises ValueError if a package that `config.trackers` needs is missing.
    """
    every = config.eval_every
    callbacks: list[Callback] = []
    early = None
    if every:
        previews = Previews(config, folder, decode, source=captions or val_data)
        callbacks.append(previews)
        early = previews.early
        if val_data is not None:
            callbacks.append(ValidationLoss(config, val_data, keep_best))
        if evaluate is not None:
            callbacks.append(Evaluation(evaluate))
    trackers = [open_tracker(name, folder, config) for name in config.trackers if is_main()]
    if every and find_spec("matplotlib"):
        trackers.append(Curves(folder, every=every, total=config.images))
    work = None
    if is_main():
        with suppress(ValueError):  # the cost of a network that is not registered is unknown
            work = work_of(config, pick_device(config.device))
    return Monitor(tuple(callbacks), every, tuple(trackers), work, early)


def monitored(
    steps: Iterable[TrainingProgress],
    *,
    total: int,
    monitor: Monitor,
    say: Callable[[str], None] | None = None,
) -> Iterator[TrainingProgress]:
    """The same steps, after their numbers went to the trackers of `monitor`.

    Trackers get numbers where `eqm.train.loop.line_due` says so, and after each call of the callbacks,
    whose time does not count as training. Which numbers they get depends on the images seen alone, so a
    resumed run has the same log, but for times. Only those of the first process get them. If a callback or
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

    throughput, position = Throughput(monitor.work), -1
    early = () if monitor.early is None or world_size() > 1 else (monitor.early,)
    first, preview_at = time.perf_counter(), FIRST_PREVIEW
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
            pictures: Mapping[str, Path] = {}
            if due or done or line_due(before, position):
                numbers = throughput.measure()
                metrics = call(monitor.callbacks, progress) if due else Metrics()
                for tracker in trackers:
                    attempt(tracker, tracker.log, numbers | dict(metrics.numbers), position)
                pictures = metrics.pictures
                throughput.restart()
            preview = early and not due and position < monitor.every
            if preview and time.perf_counter() - first >= preview_at:
                pictures = call(early, progress).pictures
                preview_at *= 2
            for name, path in pictures.items():
                for tracker in trackers:
                    attempt(tracker, tracker.picture, name, path, position)
            yield progress
    finally:
        for tracker in trackers:
            attempt(tracker, tracker.finish)
        if isinstance(steps, Generator):  # the lock of the folder ends with it
            steps.close()


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
    is None if there were no steps, because the run was complete. Raises ValueError for a folder with other
    files than those of a run.
    """
    check_folder(folder, RUN, name="folder")
    monitor = monitor or Monitor()
    last = None
    with Bar(total, title) as bar:
        ours: tuple[Tracker, ...] = (bar, Log(folder), *monitor.trackers)
        everything = replace(monitor, trackers=ours)
        for progress in monitored(steps, total=total, monitor=everything, say=bar.say):
            last = progress
            bar.show(progress)
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
        self.started, self.shown = False, 0
        self.since, self.images = time.perf_counter(), 0

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
        self._restart(images)

    def show(self, progress: TrainingProgress) -> None:
        """Shows throughput and loss, and the time left once; at most one time a second."""
        now = time.perf_counter()
        if now - self.since < REFRESH or progress.images == self.images or not is_main():
            return
        rate = (progress.images - self.images) / (now - self.since)
        self.shown += 1
        if self.shown == ESTIMATE_AT and progress.images < self.total:
            left = duration((self.total - progress.images) / rate)
            self.say(f"about {left} left, at {rate:,.0f} images/s")
        note = f"{rate:,.0f} images/s  loss {float(progress.means[0]):.4f}"
        self.bar.update(self.task, note=note)
        self._restart(progress.images)

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Shows each validation loss. The time of the validation counts as none of training."""
        if "val_loss" in numbers:
            self.say(f"{images:>9,} images: validation loss {numbers['val_loss']:.4f}")
            self._restart(images)

    def _restart(self, images: int) -> None:
        self.since, self.images = time.perf_counter(), images
        self.bar.update(self.task, completed=images)
