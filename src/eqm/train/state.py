"""Everything a run is, between two steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqm.models import build, from_pretrained, load_matching, with_energy
from eqm.train.config import TrainConfig
from eqm.train.distributed import distribute, is_main, shard, whole, world_size
from eqm.train.ema import Averages
from eqm.train.optimizer import make_optimizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What does not change during a run: its settings, its folder and what it is trained on."""

    config: TrainConfig
    folder: Path
    data: dict[str, Any]


@dataclass
class TrainingState:
    """A run between two steps. With FSDP each process holds a part of every weight."""

    model: nn.Module
    average: nn.Module
    """The average of the weights that gets sampled."""
    averages: Averages
    """Of other widths, for `eqm ema`."""
    optimizer: torch.optim.Optimizer
    images: int = 0
    """Images seen so far."""
    skipped: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Steps so far that were not taken because loss or gradient were not finite; on the device."""
    streak: Tensor = field(default_factory=lambda: torch.zeros(()))
    """How many of them were the latest; on the device."""
    attempt: int = 0
    """How often the run went back to a checkpoint; it changes the draws."""
    run: Run | None = None
    """Set by `train`."""


def start(config: TrainConfig, device: torch.device) -> TrainingState:
    """The state before the first image; the weights depend on the seed alone, or are those of
    `config.init_from`.

    Raises ValueError as `load_matching` does."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # of the CPU alone
        net = build(config.model)
    if config.init_from:
        trained = from_pretrained(config.init_from)
        fresh = load_matching(net, getattr(trained, "net", trained))
        if fresh and is_main():
            _log.warning("the run starts from %s; fresh: %s", config.init_from, ", ".join(fresh))
    model = with_energy(net, config.objective.energy).to(device)
    average = deepcopy(model).eval()
    net.activation_checkpointing = config.activation_checkpointing
    if config.parallel == "fsdp" and world_size() > 1:
        shard(model, device, trains=True)
        shard(average, device, trains=False)
    skipped, streak = torch.zeros((), device=device), torch.zeros((), device=device)
    optimizer = make_optimizer(model, config.optimizer, device)
    averages = Averages(model, config.optimizer.ema_sigma_rel)
    return TrainingState(model, average, averages, optimizer, skipped=skipped, streak=streak)


def average_of(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """The averaged weights, whole, by name; all processes must ask."""
    for name, tensor in state.average.state_dict().items():
        yield f"average.{name}", whole(tensor)


def tensors_of(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a run, whole, by names that do not depend on how it is spread; all must ask.

    An optimizer may be of any kind whose `state_dict` has the form of torch's.
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
    """Returns nothing; puts tensors, named as by `tensors_of`, in their places; all must take part.

    `kinds` gives the shape and dtype of each, `read` the tensor, on process 0 (elsewhere None).
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
    """The number that the optimizer gives each weight, its name and the weight."""
    names = {id(weight): name for name, weight in state.model.named_parameters()}
    groups = state.optimizer.state_dict()["param_groups"]
    for group, packed in zip(state.optimizer.param_groups, groups, strict=True):
        for index, weight in zip(packed["params"], group["params"], strict=True):
            yield index, names[id(weight)], weight
