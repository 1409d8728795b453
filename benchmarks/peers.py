"""Our loss and sampler beside those of the package torchebm, on the same network, in one interleaved run.

    pip install 'eqm[bench]'
    python benchmarks/peers.py

Both train our transformer on the same 32x32x4 latents with AdamW and a moving average, and descend the
same weights from the same noise with guidance by plain gradient descent. The table of the samples says
how far apart they end.
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
    """Prints the tables; keeps them in results/peers.md.

    Args:
        model: Size of the network.
        batch: Latents of a step, and samples at a time.
        updates: Sampler steps in one measurement.
        rounds: Turns of each variant.
        threads: CPU threads; 0 leaves it to torch.
        device: cpu, cuda, ...; auto takes the fastest there is.
        compile: Also measure ours compiled.
        quick: Try whether it runs, with a small network, and keep nothing.
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
    net = lively(build(config)).to(place)
    x = torch.randn(batch, 4, 32, 32, device=place)
    labels = torch.arange(batch, device=place) % 1000
    with record("peers", "Ours beside torchebm", keep=not quick):
        print(f"torchebm {version('torchebm')}; {model}, {place}, {rounds} rounds.\n")
        trainers: dict[str, Callable[[], object]] = {
            "torchebm, float32": their_step(deepcopy(net).train(), x, labels),
            "ours, float32": our_step(config, place, x, labels, precision="float32"),
            "ours, bfloat16": our_step(config, place, x, labels, precision="bfloat16"),
        }
        if compile:
            trainers["ours, bfloat16, compiled"] = our_step(
                config, place, x, labels, precision="bfloat16", compile="on"
            )
        title = f"Training step, {batch} latents"
        table(title, trainers, rounds, place, ("images/s", batch))

        samplers: dict[str, Callable[[], Tensor]] = {
            "torchebm, float32": their_sampler(net, x, labels, updates),
            "ours, float32": our_sampler(net.eval(), x, labels, updates),
            "ours, bfloat16": our_sampler(
                for_inference(net, precision="bfloat16"), x, labels, updates
            ),
        }
        if compile:
            fast = for_inference(net, precision="bfloat16", compile=True)
            samplers["ours, bfloat16, compiled"] = our_sampler(fast, x, labels, updates)
        reference = samplers["torchebm, float32"]()
        errors = {name: (run() - reference).abs().max().item() for name, run in samplers.items()}
        what = f"Guided gradient descent, {batch} samples, {updates} updates"
        rate = ("samples/s of 250 updates", batch * updates / 250)
        table(what, samplers, rounds, place, rate, extra=("largest difference", errors))


def lively(net: Network) -> Network:
    """The network with random weights everywhere, so that nothing is trivially zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.any():
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return net


class _TheirSignature(nn.Module):
    """Our network as torchebm calls one."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(x, y)


def their_step(net: Network, data: Tensor, labels: Tensor) -> Callable[[], object]:
    """A training step by torchebm's loss and moving average."""
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
    """torchebm's gradient descent on its adapter of a field, in its guidance."""
    from torchebm.models import EqMEnergy
    from torchebm.models.wrappers import ClassifierFreeGuidance
    from torchebm.samplers import GradientDescentSampler

    led = ClassifierFreeGuidance(_TheirSignature(net), GUIDANCE, 1000)
    energy = EqMEnergy(led, energy_type="implicit")
    sampler = GradientDescentSampler(energy, step_size=STEP_SIZE, device=x.device)
    return lambda: sampler.sample(x=x, n_steps=updates, y=labels)


def our_sampler(field: eqm.Field, x: Tensor, labels: Tensor, updates: int) -> Callable[[], Tensor]:
    """The same descent by ours."""
    led, rule = eqm.guide(field, GUIDANCE, 1000), eqm.GradientDescent(STEP_SIZE)
    return lambda: eqm.descend(led, x, labels, rule=rule, max_steps=updates).x


if __name__ == "__main__":
    tyro.cli(main)
