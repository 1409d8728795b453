"""Taking turns, and tables of what it took: what the benchmarks share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import date
from statistics import median

import torch

from eqm.devices import machine


def heading() -> str:
    """How the benchmark was called, when and where."""
    return f"`python {' '.join(sys.argv)}` on {date.today()}, {machine()}.\n"


def table(
    title: str,
    variants: dict[str, Callable[[], object]],
    rounds: int,
    place: torch.device,
    extra: tuple[str, dict[str, float]] | None = None,
) -> None:
    """Prints seconds and ratios to the first variant, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()  # warm
    for _ in range(rounds):
        for name, run in variants.items():
            synchronize(place)
            began = time.perf_counter()
            run()
            synchronize(place)
            seconds[name].append(time.perf_counter() - began)
    base = next(iter(seconds.values()))
    heading = "" if extra is None else f" {extra[0]} |"
    print(f"{title}\n\n| | seconds | times faster | from .. to |{heading}")
    print("|---" * (4 if extra is None else 5) + "|")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(base, times, strict=True)]
        column = "" if extra is None else f" {extra[1][name]:.1e} |"
        print(
            f"| {name} | {median(times):.3f} | {median(ratios):.2f} | "
            f"{min(ratios):.2f} .. {max(ratios):.2f} |{column}",
            flush=True,
        )
    print()


def synchronize(place: torch.device) -> None:
    """Waits for the device."""
    if place.type != "cpu":
        torch.accelerator.synchronize()
