"""The overhead of `eqm.stream` over calls of the network.

    python benchmarks/overhead.py

Network calls and streams with the same NFE alternate; medians are printed. The stream is also timed with a
field that only returns a tensor, which is less noisy than the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
import tyro
from timing import interleaved, record

import eqm
from eqm.devices import pick_device
from eqm.models import build, preset


def main(
    model: str = "EqM-S/2",
    batch: int = 16,
    steps: int = 3,
    rounds: int = 5,
    device: str = "auto",
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/overhead.md.

    Args:
        model: Preset of the network.
        batch: Samples per batch.
        steps: NFE per measurement.
        rounds: Measurements of each variant.
        device: cpu, cuda, ...; auto for the fastest.
        quick: Only check that it runs, with a small network; write nothing.
    """
    if quick:
        model, batch, rounds = "EqM-S/8", 2, 1
    where = pick_device(device)
    network = build(preset(model, shape=(4, 32, 32), num_classes=1000)).to(where).eval()
    x = torch.randn(batch, 4, 32, 32, device=where)
    labels, kept = torch.zeros(batch, dtype=torch.int64, device=where), torch.randn_like(x)
    rule, stop = eqm.NesterovLookahead(0.002), eqm.PathLength(1.0) | eqm.RelativeGradientNorm(0.01)

    @torch.inference_mode()
    def network_alone() -> None:
        for _ in range(steps):
            network(x, labels)

    def streamed(field: eqm.Field) -> None:
        list(eqm.stream(field, x, labels, rule=rule, stop=stop, batch_size=batch, max_steps=steps))

    kinds: dict[str, Callable[[], None]] = {
        "network": network_alone,
        "stream": lambda: streamed(network),
        "stream without network": lambda: streamed(lambda x, labels: kept[: len(x)]),
    }
    with record("overhead", "Overhead of stream", keep=not quick):
        seconds = interleaved(kinds, rounds, where)
        middle = {name: 1e3 * median(times) / steps for name, times in seconds.items()}
        print(f"{model}, batch {batch}, medians of {rounds} measurements of {steps} steps.\n")
        print("| | ms per step | of network |\n|---|---|---|")
        for name, spent in middle.items():
            print(f"| {name} | {spent:.3g} | {spent / middle['network']:.2%} |")


if __name__ == "__main__":
    tyro.cli(main)
