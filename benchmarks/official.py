"""The sampler and training step of eqm beside the official implementation.

    git clone https://github.com/raywang4/EqM
    python benchmarks/official.py --checkout EqM

Both use the same weights and the same 32x32x4 latents. The variants alternate in each round, so a change in
the speed of the machine affects all of them. The table shows medians over the rounds, and the median and
range of the speedup over the official code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import tyro
from timing import record, table
from torch import Tensor, nn

import eqm
from eqm.devices import pick_device
from eqm.models import TransformerConfig, for_inference, official, preset
from eqm.models.transformer import Attention, PatchEmbedding, Perceptron
from eqm.randomness import SampleRandom
from eqm.train import TrainConfig, make_step, start

GUIDANCE, STEP_SIZE, MOMENTUM = 1.5, 0.0017, 0.3
LEARNING_RATE, DECAY = 1e-4, 0.9999


def main(
    checkout: Path,
    model: str = "EqM-S/2",
    batch: int = 16,
    updates: int = 2,
    rounds: int = 5,
    threads: int = 0,
    device: str = "auto",
    compile: bool = False,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/official-MODEL.md.

    Args:
        checkout: Folder of the official repository.
        model: Preset of the network.
        batch: Samples per batch; training uses half as many.
        updates: Sampler steps per measurement.
        rounds: Measurements of each variant.
        threads: CPU threads; 0 for torch's default.
        device: cpu, cuda, ...; auto for the fastest.
        compile: Also measure compiled variants; compiling takes a minute or two.
        quick: Only check that it runs, with a small network; write nothing.
    """
    if not (checkout / "models.py").is_file():
        print(f"skipped: {checkout} is not a checkout of github.com/raywang4/EqM", file=sys.stderr)
        return
    if threads:
        torch.set_num_threads(threads)
    if quick:
        model, batch, rounds = "EqM-S/8", 2, 1
    place = pick_device(device)
    config = preset(model, shape=(4, 32, 32), num_classes=1000)
    assert isinstance(config, TransformerConfig)
    theirs = official_network(checkout, config).to(place)
    ours = official.load(theirs.state_dict()).to(place)
    named = model.lower().removeprefix("eqm-").replace("/", "-")
    with record(f"official-{named}", "eqm beside the official implementation", keep=not quick):
        size = sum(weight.numel() for weight in ours.parameters())
        print(f"{model}, {size:,} parameters, {place}, {rounds} rounds.\n")
        side_by_side(config, theirs, ours, batch, updates, rounds, place, compile)


def side_by_side(
    config: TransformerConfig,
    theirs: nn.Module,
    ours: nn.Module,
    batch: int,
    updates: int,
    rounds: int,
    place: torch.device,
    compile: bool,
) -> None:
    """Prints the tables of sampling and of training."""
    x = torch.randn(batch, 4, 32, 32, device=place)
    labels = torch.arange(batch, device=place) % 1000

    samplers: dict[str, Callable[[], Tensor]] = {
        "official loop, float32": lambda: official_sampler(theirs, x, labels, updates),
        "eqm, float32": sampler(ours, x, labels, updates),
        "eqm, bfloat16": sampler(for_inference(ours, precision="bfloat16"), x, labels, updates),
    }
    if compile:
        fast = for_inference(ours, precision="bfloat16", compile=True)
        samplers["eqm, bfloat16, compiled"] = sampler(fast, x, labels, updates)
    reference = samplers["official loop, float32"]()
    errors = {name: (run() - reference).abs().max().item() for name, run in samplers.items()}
    what = f"Guided sampling with NesterovLookahead, {batch} samples, {updates} steps"
    rate = ("samples/s of 250 steps", batch * updates / 250)
    table(what, samplers, rounds, place, rate, extra=("largest difference", errors))

    data = torch.randn(max(1, batch // 2), 4, 32, 32, device=place)
    classes = labels[: len(data)]
    trainers: dict[str, Callable[[], object]] = {
        "official step, float32": official_step(deepcopy(theirs).train(), data, classes),
        "eqm, float32": our_step(config, place, data, classes, precision="float32"),
        "eqm, bfloat16": our_step(config, place, data, classes, precision="bfloat16"),
    }
    if compile:
        trainers["eqm, bfloat16, compiled"] = our_step(
            config, place, data, classes, precision="bfloat16", compile="on"
        )
    title = f"Training step, {len(data)} latents"
    table(title, trainers, rounds, place, ("images/s", len(data)))


def sampler(field: eqm.Field, x: Tensor, labels: Tensor, updates: int) -> Callable[[], Tensor]:
    """The descent of eqm, guided on the first three channels like the official sampler."""
    guided = eqm.guide(field, GUIDANCE, 1000, channels=3)
    rule = eqm.NesterovLookahead(STEP_SIZE, MOMENTUM)
    return lambda: eqm.descend(guided, x, labels, rule=rule, max_steps=updates).x


def our_step(
    config: TransformerConfig, place: torch.device, data: Tensor, labels: Tensor, **changes: Any
) -> Callable[[], object]:
    """The training step of eqm with the paper's settings."""
    run = replace(TrainConfig(model=config, batch_size=len(data)), **changes)
    state = start(run, place)
    state.model.train()
    step = make_step(run, state, place)
    draws = SampleRandom(0, torch.arange(len(data), device=place))
    return lambda: step(data, labels, draws)


def official_sampler(net: nn.Module, x: Tensor, labels: Tensor, updates: int) -> Tensor:
    """The loop of the official sampling script, with guidance and look-ahead."""
    doubled = torch.cat([x, x])
    classes = torch.cat([labels, torch.full_like(labels, 1000)])
    time_input = torch.ones(len(doubled), device=x.device)
    last = torch.zeros_like(doubled)
    with torch.no_grad():
        for _ in range(updates):
            ahead = doubled + STEP_SIZE * MOMENTUM * last
            last = net.forward_with_cfg(ahead, time_input, classes, GUIDANCE)  # type: ignore[operator]
            doubled = doubled + STEP_SIZE * last
    return doubled.chunk(2)[0]


def official_step(net: nn.Module, data: Tensor, labels: Tensor) -> Callable[[], object]:
    """The step of the official training script for a batch of latents."""
    average = deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0)
    decay = eqm.TruncatedDecay()

    def step() -> float:
        noise, gamma = torch.randn_like(data), torch.rand(len(data), device=data.device)
        target = (data - noise) * decay(gamma).view(-1, 1, 1, 1)
        output = net(eqm.corrupt(data, noise, gamma), gamma, labels, train=True)
        loss = (output - target).square().flatten(1).mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        weights = dict(net.named_parameters())
        with torch.no_grad():
            for name, weight in average.named_parameters():
                weight.mul_(DECAY).add_(weights[name].data, alpha=1 - DECAY)
        return loss.item()

    return step


def official_network(checkout: Path, config: TransformerConfig) -> nn.Module:
    """The official network with random weights in place of zeros.

    It uses three layers of the package timm. If timm is missing, equal layers of eqm replace them.
    """
    # The official scripts set this; it also applies to eqm in float32 here.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if find_spec("timm") is None:
        install_stand_ins()
    sys.path.insert(0, str(checkout))
    import models as official_models  # type: ignore[import-not-found]

    net: nn.Module = official_models.EqM(
        input_size=config.shape[1],
        patch_size=config.patch,
        in_channels=config.shape[0],
        hidden_size=config.width,
        depth=config.depth,
        num_heads=config.heads,
        num_classes=config.num_classes,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.requires_grad and not weight.any():
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return net.eval()


def install_stand_ins() -> None:
    """Installs modules in place of timm, with the three layers that are imported from it."""

    class PatchEmbed(PatchEmbedding):
        def __init__(self, size: int, patch: int, channels: int, width: int, bias: bool) -> None:
            super().__init__(channels, patch, width)
            self.patch_size, self.num_patches = (patch, patch), (size // patch) ** 2

    class Heads(Attention):
        def __init__(self, width: int, num_heads: int, qkv_bias: bool) -> None:
            super().__init__(width, num_heads)

    class Mlp(Perceptron):
        def __init__(self, in_features: int, hidden_features: int, **_: object) -> None:
            super().__init__(in_features, hidden_features)

    layers = {"PatchEmbed": PatchEmbed, "Attention": Heads, "Mlp": Mlp}
    for name in ("timm", "timm.models", "timm.models.vision_transformer"):
        sys.modules[name] = ModuleType(name)
    for name, layer in layers.items():
        setattr(sys.modules["timm.models.vision_transformer"], name, layer)


if __name__ == "__main__":
    tyro.cli(main)
