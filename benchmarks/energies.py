"""The time of a training step with an explicit energy, beside the implicit one.

    python benchmarks/energies.py

The official implementation uses double backward. The speedup is relative to the implicit float32 step;
0.5 means twice the time. The variants alternate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import tyro
from timing import record, table

from eqm.devices import pick_device
from eqm.models import preset
from eqm.randomness import SampleRandom
from eqm.train import TrainConfig, make_step, start
from eqm.train.config import ObjectiveConfig

DOT = ObjectiveConfig(energy="dot")
ROUTES = {
    "implicit, float32": {},
    "implicit, bfloat16": {"precision": "bfloat16"},
    "dot, double backward": {"objective": DOT},
    "dot, one-sided difference": {"objective": replace(DOT, gradient="difference")},
    "dot, compiled": {"objective": DOT, "compile": "on"},
    "dot, compiled, bfloat16": {"objective": DOT, "compile": "on", "precision": "bfloat16"},
}


def main(
    model: str = "EqM-S/2",
    batch: int = 4,
    rounds: int = 5,
    threads: int = 0,
    device: str = "auto",
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/energies.md.

    Args:
        model: Preset of the network, for 32x32x4 latents.
        batch: Latents per step.
        rounds: Measurements of each variant.
        threads: CPU threads; 0 for torch's default.
        device: cpu, cuda, ...; auto for the fastest.
        quick: Only check that it runs, with a small network; write nothing.
    """
    if threads:
        torch.set_num_threads(threads)
    if quick:
        model, batch, rounds = "EqM-S/8", 2, 1
    place = pick_device(device)
    network = preset(model, shape=(4, 32, 32), num_classes=1000)
    if quick:
        network = replace(network, depth=1)  # type: ignore[call-arg]
    plain = TrainConfig(model=network, batch_size=batch, precision="float32")
    data = torch.randn(batch, 4, 32, 32, device=place)
    labels = torch.arange(batch, device=place)
    draws = SampleRandom(0, labels)

    def training_step(config: TrainConfig) -> Callable[[], object]:
        state = start(config, place)
        state.model.train()
        step = make_step(config, state, place)
        return lambda: step(data, labels, draws)

    steps = {name: training_step(replace(plain, **changes)) for name, changes in ROUTES.items()}
    with record("energies", "Training an explicit energy", keep=not quick):
        title = f"Training step of {model}, {batch} latents, {place}"
        table(title, steps, rounds, place, ("images/s", batch))


if __name__ == "__main__":
    tyro.cli(main)
