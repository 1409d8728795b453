"""What the driver costs over bare calls of the network, as a share of their time.

    python benchmarks/overhead.py

Bare calls and streams of the same evaluations alternate; medians of each. The driver alone, around
a field that only returns a tensor, is timed too: its share is less noisy than the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from statistics import median

import torch
import tyro

import eqm
from eqm.devices import machine, pick_device
from eqm.models import build, preset


def main(
    model: str = "EqM-S/2", batch: int = 16, steps: int = 3, rounds: int = 5, device: str = "auto"
) -> None:
    """Prints the shares.

    Args:
        model: Preset to measure.
        batch: Samples at a time.
        steps: Evaluations of the network in a measurement.
        rounds: Measurements of each kind.
        device: cpu, cuda, ...
    """
    where = pick_device(device)
    network = build(preset(model, shape=(4, 32, 32), num_classes=1000)).to(where).eval()
    x = torch.randn(batch, 4, 32, 32, device=where)
    labels, kept = torch.zeros(batch, dtype=torch.int64, device=where), torch.randn_like(x)
    rule, stop = eqm.NesterovLookahead(0.002), eqm.PathLength(1.0) | eqm.RelativeGradientNorm(0.01)

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(steps):
            network(x, labels)

    def streamed(field: eqm.Field) -> None:
        list(eqm.stream(field, x, labels, rule=rule, stop=stop, batch_size=batch, max_steps=steps))

    def timed(call: Callable[[], None]) -> float:
        began = time.perf_counter()
        call()
        if where.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps

    kinds: dict[str, Callable[[], None]] = {
        "bare": bare,
        "stream": lambda: streamed(network),
        "driver alone": lambda: streamed(lambda x, labels: kept[: len(x)]),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for k in range(rounds + 1):  # the first is for warming up
        for name, call in kinds.items():
            spent = timed(call)
            if k:
                times[name].append(spent)
    middle = {name: median(values) for name, values in times.items()}
    print(
        f"{date.today()}, {machine()}, {torch.get_num_threads()} threads; {model}, batch {batch}, "
        f"medians of {rounds} measurements of {steps} steps"
    )
    for name, seconds in middle.items():
        print(
            f"{name}: {1e3 * seconds:.3g} ms a step, {100 * seconds / middle['bare']:.2f} % of bare"
        )


if __name__ == "__main__":
    tyro.cli(main)
