"""The training step and sampler of eqm beside the package torchebm, with the same network.

    pip install 'eqm[bench]'
    python benchmarks/peers.py

Both train the transformer of eqm on the same 32x32x4 latents with AdamW and an EMA of the weights, and
sample with guided gradient descent from the same noise. The second table also shows the largest
difference between the samples. The variants alternate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version
from importlib.util import find_spec

import torch
import tyro
from official import DECAY, GUIDANCE, LEARNING_RATE, STEP_SIZE, our_step
from timing import record, table
from torch import Tensor, nn

import eqm
from eqm.devices import pick_device
from eqm.models import Network, TransformerConfig, build, for_inference, preset


def main(
    model: str = "EqM-S/2",
    batch: int = 8,
    updates: int = 2,
    rounds: int = 5,
    threads: int = 0,
    device: str = "auto",
    compile: bool = False,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/peers.md.

    Args:
        model: Preset of the network.
        batch: Latents per step, and samples per batch.
        updates: Sampler steps per measurement.
        rounds: Measurements of each variant.
        threads: CPU threads; 0 for torch's default.
        device: cpu, cuda, ...; auto for the fastest.
        compile: Also measure eqm compiled.
        quick: Only check that it runs, with a small network; write nothing.
    """
    if find_spec("torchebm") is None:
        print("skipped: torchebm is missing; pip install 'eqm[bench]'", file=sys.stderr)
        return
    if threads:
        torch.set_num_threads(threads)
    if quick:
        model, batch, rounds = "EqM-S/8", 2, 1
    place = pick_device(device)
    config = preset(model, shape=(4, 32, 32), num_classes=1000)
    assert isinstance(config, TransformerConfig)
    net = randomized(build(config)).to(place)
    x = torch.randn(batch, 4, 32, 32, device=place)
    labels = torch.arange(batch, device=place) % 1000
    with record("peers", "eqm beside torchebm", keep=not quick):
        print(f"torchebm {version('torchebm')}; {model}, {place}, {rounds} rounds.\n")
        trainers: dict[str, Callable[[], object]] = {
            "torchebm, float32": their_step(deepcopy(net).train(), x, labels),
            "eqm, float32": our_step(config, place, x, labels, precision="float32"),
            "eqm, bfloat16": our_step(config, place, x, labels, precision="bfloat16"),
        }
        if compile:
            trainers["eqm, bfloat16, compiled"] = our_step(
                config, place, x, labels, precision="bfloat16", compile="on"
            )
        title = f"Training step, {batch} latents"
        table(title, trainers, rounds, place, ("images/s", batch))

        samplers: dict[str, Callable[[], Tensor]] = {
            "torchebm, float32": their_sampler(net, x, labels, updates),
            "eqm, float32": our_sampler(net.eval(), x, labels, updates),
            "eqm, bfloat16": our_sampler(
                for_inference(net, precision="bfloat16"), x, labels, updates
            ),
        }
        if compile:
            fast = for_inference(net, precision="bfloat16", compile=True)
            samplers["eqm, bfloat16, compiled"] = our_sampler(fast, x, labels, updates)
        reference = samplers["torchebm, float32"]()
        errors = {name: (run() - reference).abs().max().item() for name, run in samplers.items()}
        what = f"Guided gradient descent, {batch} samples, {updates} steps"
        rate = ("samples/s of 250 steps", batch * updates / 250)
        table(what, samplers, rounds, place, rate, extra=("largest difference", errors))


def randomized(net: Network) -> Network:
    """The network with random weights in place of zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.any():
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return net


class _TheirSignature(nn.Module):
    """A network of eqm with the signature that torchebm expects."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(x, y)


def their_step(net: Network, data: Tensor, labels: Tensor) -> Callable[[], object]:
    """A training step with torchebm's loss and EMA."""
    from torchebm.losses import EquilibriumMatchingLoss
    from torchebm.utils.ema import EMA

    model = _TheirSignature(net)
    losses = EquilibriumMatchingLoss(model=model, device=data.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0)
    average = EMA(model, decay=DECAY)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = losses(data, y=labels)
        loss.backward()
        optimizer.step()
        average.update(model)
        return loss.detach()

    return step


def their_sampler(net: Network, x: Tensor, labels: Tensor, updates: int) -> Callable[[], Tensor]:
    """torchebm's gradient descent with its field adapter and its guidance."""
    from torchebm.models import EqMEnergy
    from torchebm.models.wrappers import ClassifierFreeGuidance
    from torchebm.samplers import GradientDescentSampler

    guided = ClassifierFreeGuidance(_TheirSignature(net), GUIDANCE, 1000)
    energy = EqMEnergy(guided, energy_type="implicit")
    sampler = GradientDescentSampler(energy, step_size=STEP_SIZE, device=x.device)
    return lambda: sampler.sample(x=x, n_steps=updates, y=labels)


def our_sampler(field: eqm.Field, x: Tensor, labels: Tensor, updates: int) -> Callable[[], Tensor]:
    """The same descent with eqm."""
    guided, rule = eqm.guide(field, GUIDANCE, 1000), eqm.GradientDescent(STEP_SIZE)
    return lambda: eqm.descend(guided, x, labels, rule=rule, max_steps=updates).x


if __name__ == "__main__":
    tyro.cli(main)
