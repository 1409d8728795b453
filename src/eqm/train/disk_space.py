"""Whether the disk has space for the next checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from eqm.files import DiskFullError
from eqm.train.config import TrainConfig
from eqm.train.distributed import on_main, refuse
from eqm.train.ema import snapshots_due
from eqm.train.state import TrainingState


def check_space(state: TrainingState, config: TrainConfig, folder: Path) -> None:
    """Returns nothing; raises DiskFullError if the next checkpoint, with all that is written before
    it, does not fit on the disk."""
    ahead = bytes_of(state)
    if config.eval_every and config.data.val_fraction:
        ahead += 2 * _bytes(state.average.state_dict().values())  # `best` and its copy
    until = min(state.images + config.checkpoint_every, config.images)
    count = snapshots_due(config.optimizer, before=state.images, after=until, total=config.images)
    ahead += count * sum(_bytes(tensors.values()) for tensors in state.averages.tensors.values())
    if full := lack_of_space(folder, ahead):
        refuse(DiskFullError(full))


def bytes_of(state: TrainingState) -> int:
    """Bytes of a checkpoint with the averaged weights beside it."""
    groups = state.optimizer.param_groups
    # Muon keeps one tensor per matrix, AdamW two per weight; they do not exist before the first step.
    means = sum(_bytes(group["params"]) * (1 if group.get("orthogonal") else 2) for group in groups)
    averages = sum(_bytes(tensors.values()) for tensors in state.averages.tensors.values())
    # The averaged weights are written twice: in the checkpoint and as the model.
    modules = _bytes(state.model.state_dict().values())
    return modules + 2 * _bytes(state.average.state_dict().values()) + averages + means


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def lack_of_space(folder: Path, needed: int) -> str:
    """A sentence if the disk has fewer free bytes than needed, otherwise an empty text."""
    free = on_main(lambda: shutil.disk_usage(folder).free)
    if free >= needed:
        return ""
    return (
        f"the disk of {folder} has {free / 1e6:,.0f} MB free, the next checkpoint takes "
        f"{needed / 1e6:,.0f} MB: free some space or choose another folder"
    )
