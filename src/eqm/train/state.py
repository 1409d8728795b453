"""The state of a training run between two steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqm.models import Network, build, from_pretrained, load_matching, with_energy
from eqm.train.config import TrainConfig
from eqm.train.distributed import distribute, is_main, shard, whole, world_size
from eqm.train.ema import Averages
from eqm.train.optimizer import make_optimizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What stays the same during a run: settings, folder and a description of the data."""

    config: TrainConfig
    folder: Path
    data: dict[str, Any]


@dataclass(frozen=True)
class Best:
    """The averaged weights with the best value of a run, in its folder `best`."""

    value: float
    images: int
    """Images seen when they were saved."""
    sha256: str
    """Digest of their tensors, as `checkpoint.digest_of` gives it."""


@dataclass
class TrainingState:
    """The state between two steps. With FSDP each process holds a part of every weight."""

    model: nn.Module
    average: nn.Module
    """The moving average of the weights (EMA), which is saved and sampled."""
    averages: Averages
    """Power-function averages, for `eqm ema`."""
    optimizer: torch.optim.Optimizer
    images: int = 0
    """Images seen so far."""
    skipped: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Steps skipped so far because the loss or the gradient was not finite; on the device."""
    bad_steps: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Steps in a row that were skipped just now; on the device."""
    sums: Tensor = field(default_factory=lambda: torch.zeros(2, 2))
    """Since the last regular line of the log, of the losses and of the gradient norms: the sum and the
    count of the finite ones; on the device."""
    lowest: float = math.inf
    """The lowest validation loss so far."""
    worse: int = 0
    """Validations in a row without a lower loss."""
    best: Best | None = None
    """The weights in the folder `best`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings and the data of the checkpoint that was loaded, by name."""
    snapshots: dict[str, str] = field(default_factory=dict)
    """The files of the snapshots of the averages: SHA-256 by name."""
    rollbacks: int = 0
    """How often the run went back to a checkpoint. The random numbers depend on it."""
    run: Run | None = None
    """Set by `train`."""
    network: nn.Module | None = None
    """The module passed to `train` as `model`, with its first weights; None for a network of the
    settings."""
    stopping: bool = False
    """Set this to True to end the run after this step (early stopping)."""


def start(
    config: TrainConfig, device: torch.device, network: nn.Module | None = None
) -> TrainingState:
    """The state before the first image.

    The weights are those of `network`, if given, or fresh ones, which depend on the seed alone.
    `config.init_from` replaces them. Raises ValueError as `load_matching` does."""
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # the CPU's generator alone
            net: nn.Module = build(config.model)
    else:
        net = deepcopy(network)
    if config.init_from:
        trained = from_pretrained(config.init_from)
        fresh = load_matching(net, getattr(trained, "net", trained))
        if fresh and is_main():
            names = ", ".join(fresh)
            _log.warning("started from %s; these weights are new: %s", config.init_from, names)
    model = with_energy(net, config.objective.energy).to(device)
    average = deepcopy(model).eval()
    if isinstance(net, Network):
        net.activation_checkpointing = config.activation_checkpointing
    if config.parallel == "fsdp" and world_size() > 1:
        shard(model, device, trains=True)
        shard(average, device, trains=False)
    return TrainingState(
        model,
        average,
        Averages(model, config.optimizer.ema_sigma_rel),
        make_optimizer(model, config.optimizer, device),
        skipped=torch.zeros((), device=device),
        bad_steps=torch.zeros((), device=device),
        sums=torch.zeros(2, 2, device=device),
        network=network,
    )


def average_of(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """The averaged weights, gathered, by name; all processes must call this."""
    for name, tensor in state.average.state_dict().items():
        yield f"average.{name}", whole(tensor)


def tensors_of(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a run, gathered, by names that do not depend on the number of processes.

    All processes must call this. The `state_dict` of the optimizer must have the form of torch's.
    """
    for name, tensor in state.model.state_dict().items():
        yield f"model.{name}", whole(tensor)
    yield from average_of(state)
    for width, tensors in state.averages.state_dict().items():
        for name, tensor in tensors.items():
            yield f"averages {width}.{name}", whole(tensor)
    packed = state.optimizer.state_dict()["state"]
    for index, name, _ in _trained(state):
        for key, value in packed.get(index, {}).items():
            if isinstance(value, Tensor):
                yield f"optimizer.{name}.{key}", whole(value)


@torch.no_grad()
def load_tensors(
    state: TrainingState,
    kinds: Mapping[str, tuple[list[int], str]],
    read: Callable[[str], Tensor | None],
) -> None:
    """Returns nothing; loads tensors by the names of `tensors_of`; all processes must call this.

    `kinds` gives the shape and dtype of each tensor. `read` gives the tensor on process 0, and None
    on the others.
    """
    for prefix, module in (("model", state.model), ("average", state.average)):
        for name, target in module.state_dict().items():
            target.copy_(distribute(read(f"{prefix}.{name}"), target))
    for width, tensors in state.averages.state_dict().items():
        for name, target in tensors.items():
            target.copy_(distribute(read(f"averages {width}.{name}"), target))
    packed = state.optimizer.state_dict()
    packed["state"] = {}
    for index, name, weight in _trained(state):
        start = f"optimizer.{name}."
        for full in [full for full in kinds if full.startswith(start)]:
            shape, dtype = kinds[full]
            like: Tensor = weight
            if tuple(shape) != tuple(weight.shape):
                like = torch.empty(shape, dtype=getattr(torch, dtype), device=weight.device)
            value = distribute(read(full), like.detach())
            packed["state"].setdefault(index, {})[full.removeprefix(start)] = value
    state.optimizer.load_state_dict(packed)


def _trained(state: TrainingState) -> Iterator[tuple[int, str, Tensor]]:
    """For each trained weight: its number in the optimizer, its name, the weight."""
    names = {id(weight): name for name, weight in state.model.named_parameters()}
    groups = state.optimizer.state_dict()["param_groups"]
    for group, packed in zip(state.optimizer.param_groups, groups, strict=True):
        for index, weight in zip(packed["params"], group["params"], strict=True):
            yield index, names[id(weight)], weight
