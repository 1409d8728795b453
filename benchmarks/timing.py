"""Timing, tables and result files, shared by the benchmarks."""

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
    """Writes to a stream and keeps a copy."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        self.stream.flush()
        return super().write(text)


@contextmanager
def record(name: str, title: str, *, keep: bool = True) -> Iterator[None]:
    """Prints a heading, and writes all printed text to results/NAME.md if the body does not fail.

    Runs that are too small to be meaningful set `keep` to False.
    """
    both = _Both(sys.stdout)
    with redirect_stdout(both):
        print(f"# {title}\n\n{describe_run()}")
        yield
    if keep:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.md"
        path.write_text(both.getvalue().rstrip() + "\n")
        print(f"written to {path}", file=sys.stderr)


def interleaved(
    variants: dict[str, Callable[[], object]], rounds: int, place: torch.device
) -> dict[str, list[float]]:
    """Seconds of each variant in each round, after a warm-up round.

    The variants alternate, so a change in the speed of the machine affects all of them.
    """
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
    """Prints the seconds of each variant, and its speedup over the first.

    `rate` is the name of a throughput and the number of items of one run. `extra` is the name and values
    of one more column.
    """
    seconds = interleaved(variants, rounds, place)
    base = next(iter(seconds.values()))
    names = ["seconds", *([rate[0]] if rate else []), "speedup", "range"]
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
    """Waits until the device has finished."""
    if place.type != "cpu":
        torch.accelerator.synchronize()
