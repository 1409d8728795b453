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
from eqm.train.config import TrainConfig
from eqm.train.curves import Curves
from eqm.train.distributed import is_main
from eqm.train.evaluation import Evaluation, HeldOut
from eqm.train.log import Log
from eqm.train.loop import Progress as TrainingProgress
from eqm.train.pace import Pace, Work, work_of
from eqm.train.previews import Previews
from eqm.train.sight import Sight, Tracker, Watcher
from eqm.train.state import TrainingState
from eqm.train.trackers import open_tracker

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between two lines at first; each waits for the device."""
LONGEST = 10.0
"""Seconds between two lines from the third hour on."""


@dataclass(frozen=True)
class Watch:
    """What is seen of a run: by whom it is looked at, how often, and who is told."""

    watchers: tuple[Watcher, ...] = ()
    """Called in turn every so many images and at the end."""
    every: int = 0
    """Images between two such looks; 0 never looks."""
    trackers: tuple[Tracker, ...] = ()
    """Told all numbers and pictures, besides the log."""
    work: Work | None = None
    """What to compare the pace with, if anything."""


def watching(
    config: TrainConfig,
    folder: Path | str,
    held_out: Source | None = None,
    *,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    keep_best: Callable[[TrainingState, float], object] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Watch:
    """All there is to see of a run in `folder`: call it before training, hand it to `follow`.

    Every `config.watch_every` images it draws samples, measures the loss on `held_out`, and calls
    `evaluate(field)` with the averaged weights for numbers of your own. `keep_best(state, loss)` is
    told each held-out loss. `decode` turns samples into pictures, where they are none. The rate of
    the device is measured here, which takes a fraction of a second.

    Raises ValueError when a package that `config.trackers` needs is missing.
    """
    every = config.watch_every
    watchers: list[Watcher] = []
    if every:
        watchers.append(Previews(config, folder, decode))
        if held_out is not None:
            watchers.append(HeldOut(config, held_out, keep_best))
        if evaluate is not None:
            watchers.append(Evaluation(evaluate))
    trackers = [open_tracker(name, folder, config) for name in config.trackers if is_main()]
    if every and find_spec("matplotlib"):
        trackers.append(Curves(folder, every=every))
    work = work_of(config, pick_device(config.device)) if is_main() else None
    return Watch(tuple(watchers), every, tuple(trackers), work)


def watched(
    steps: Iterable[TrainingProgress],
    *,
    total: int,
    watch: Watch,
    say: Callable[[str], None] | None = None,
) -> Iterator[TrainingProgress]:
    """The same steps, once what they come to was told to the trackers of `watch`.

    They are told at intervals of a second, growing to ten, and after each look of the watchers,
    which does not count as time of training. Trackers on other processes than the first are told
    nothing. A watcher or tracker that fails is named to `say`, standard error by default, once for
    each reason, and the run goes on.
    """
    say = say or (lambda sentence: print(sentence, file=sys.stderr))
    trackers = watch.trackers if is_main() else ()
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

    def look(progress: TrainingProgress) -> Sight:
        since = time.perf_counter()
        sights = [attempt(watcher, watcher, progress) or Sight() for watcher in watch.watchers]
        seconds = time.perf_counter() - since
        numbers = {k: v for sight in sights for k, v in sight.numbers.items()}
        pictures = {k: v for sight in sights for k, v in sight.pictures.items()}
        return Sight(numbers | {"watching_seconds": seconds}, pictures)

    pace, began, position = Pace(watch.work), time.perf_counter(), -1
    try:
        for progress in steps:
            before = progress.images - progress.batch
            if before != position:  # the first step, or the run went back to a checkpoint
                for tracker in trackers:
                    attempt(tracker, tracker.start, before)
            position, done = progress.images, progress.images >= total
            pace.add(progress)
            due = watch.every and (position // watch.every > before // watch.every or done)
            interval = min(max(INTERVAL, (time.perf_counter() - began) / 1000), LONGEST)
            if due or done or pace.seconds >= interval:
                numbers = pace.look()
                sight = look(progress) if due else Sight()
                for tracker in trackers:
                    attempt(tracker, tracker.log, numbers | dict(sight.numbers), position)
                    for name, path in sight.pictures.items():
                        attempt(tracker, tracker.picture, name, path, position)
                pace.restart()
            yield progress
    finally:
        for tracker in trackers:
            attempt(tracker, tracker.finish)


def follow(
    steps: Iterable[TrainingProgress],
    *,
    total: int,
    folder: Path | str,
    watch: Watch | None = None,
    title: str = "train",
) -> TrainingProgress | None:
    """The last of `steps`, after showing them all: images/s, loss and time left.

    The same numbers and more go to `log.jsonl` in `folder`, and to the trackers of `watch`. None
    when there were no steps, because the run was complete before.
    """
    watch = watch or Watch()
    last = None
    with Bar(total, title) as bar:
        ours: tuple[Tracker, ...] = (bar, Log(folder), *watch.trackers)
        everything = replace(watch, trackers=ours)
        for progress in watched(steps, total=total, watch=everything, say=bar.say):
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
        if "held_out_loss" in numbers:
            self.say(f"{images:>9,} images: held-out loss {numbers['held_out_loss']:.4f}")
        self.bar.update(self.task, completed=images, note=note)

    def picture(self, name: str, path: Path, images: int) -> None:
        """Nothing: a bar shows none."""

    def finish(self) -> None:
        """Nothing: leaving the context ends the bar."""
