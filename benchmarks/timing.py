"""Taking turns, tables of what it took, and files that keep them: what the benchmarks share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from typing import TextIO

import torch

from eqm.devices import describe_run

RESULTS = Path(__file__).parent / "results"


class _Both(StringIO):
    """Writes through to a stream and keeps it as well."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        self.stream.flush()
        return super().write(text)


@contextmanager
def record(name: str, title: str, *, keep: bool = True) -> Iterator[None]:
    """Prints the title and `describe_run()` first; what the body prints is kept in results/NAME.md once it has
    ended without failing. A run of sizes too small to mean something has no `keep`."""
    both = _Both(sys.stdout)
    with redirect_stdout(both):
        print(f"# {title}\n\n{describe_run()}")
        yield
    if keep:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.md"
        path.write_text(both.getvalue().rstrip() + "\n")
        print(f"kept in {path}", file=sys.stderr)


def interleaved(
    variants: dict[str, Callable[[], object]], rounds: int, place: torch.device
) -> dict[str, list[float]]:
    """Seconds of each variant in each round. They take turns, so that a machine whose speed drifts is
    the same to all; a first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    for _ in range(rounds):
        for name, run in variants.items():
            synchronize(place)
            began = time.perf_counter()
            run()
            synchronize(place)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def table(
    title: str,
    variants: dict[str, Callable[[], object]],
    rounds: int,
    place: torch.device,
    rate: tuple[str, float] | None = None,
    extra: tuple[str, dict[str, float]] | None = None,
) -> None:
    """Prints seconds and ratios to the first variant, measured in turns; with `rate` also how many of
    something are made in a second, by its name and how many a run makes."""
    seconds = interleaved(variants, rounds, place)
    base = next(iter(seconds.values()))
    names = ["seconds", *([rate[0]] if rate else []), "times faster", "from .. to"]
    names += [extra[0]] if extra else []
    print(f"{title}\n\n| | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(base, times, strict=True)]
        cells = [f"{median(times):.3f}", *([f"{rate[1] / median(times):.3g}"] if rate else [])]
        cells += [f"{median(ratios):.2f}", f"{min(ratios):.2f} .. {max(ratios):.2f}"]
        cells += [f"{extra[1][name]:.1e}"] if extra else []
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def synchronize(place: torch.device) -> None:
    """Waits for the device."""
    if place.type != "cpu":
        torch.accelerator.synchronize()
