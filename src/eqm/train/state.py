"""Everything a run is, between two steps; and its way to disk and back."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eqm.files import replacing
from eqm.models import build, save_pretrained, with_energy
from eqm.train.config import TrainConfig

CHECKPOINT = "training.pt"
FREE_TO_CHANGE = {
    *("name", "images", "checkpoint_every", "watch_every", "trackers"),
    *("device", "threads", "compile", "sampling"),
}
"""Settings that a resumed run may have otherwise than its checkpoint."""


@dataclass
class TrainingState:
    """A run between two steps."""

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    images: int


def start(config: TrainConfig, device: torch.device) -> TrainingState:
    """The state before the first image; the weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # of the CPU alone
        net = build(config.model)
    model = with_energy(net, config.objective.energy).to(device)
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type != "mps",
    )
    return TrainingState(model, deepcopy(model).eval(), optimizer, 0)


def save(state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]) -> None:
    """Writes the run to `folder`: averaged weights to sample from, a checkpoint to go on from.

    `data` tells what the run is trained on, and is kept with the weights. The checkpoint alone
    holds all that `load` needs, and takes its place in one rename.
    """
    checkpoint = {
        "settings": settings_of(config, data),
        "images": state.images,
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    with replacing(folder / CHECKPOINT) as path:
        torch.save(checkpoint, path)
    about = {
        "sampling": asdict(config.sampling),
        "training": {"images_seen": state.images, **config.flat()},
    }
    save_pretrained(state.average, folder, metadata={"data": data, **about})


def load(
    config: TrainConfig, folder: Path, device: torch.device, *, data: dict[str, Any]
) -> TrainingState:
    """The state that `folder` holds, or a fresh one where there is no checkpoint.

    Raises ValueError when the checkpoint cannot be read, or was made with other settings or data.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return start(config, device)
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        saved = checkpoint["settings"]
    except (
        *(RuntimeError, EOFError, KeyError, IndexError, TypeError, AttributeError, OSError),
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(
            f"{path} is not a readable checkpoint (damaged or of another program): "
            "move it away to start afresh, or choose another folder"
        ) from error
    wanted = settings_of(config, data)
    different = [
        f"{name} was {saved.get(name)} and is now {wanted.get(name)}"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name) and name.split(".")[0] not in FREE_TO_CHANGE
    ]
    if different:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(different)}): "
            "choose another folder, or the same settings to go on"
        )
    state = start(config, device)
    state.model.load_state_dict(checkpoint["model"])
    state.average.load_state_dict(checkpoint["average"])
    state.optimizer.load_state_dict(checkpoint["optimizer"])
    state.images = checkpoint["images"]
    return state


def settings_of(config: TrainConfig, data: dict[str, Any]) -> dict[str, Any]:
    """All that makes a run what it is, by name."""
    return config.flat() | {f"data.{name}": value for name, value in data.items()}
