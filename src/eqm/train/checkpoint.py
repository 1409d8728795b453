"""Checkpoints of a run: tensors as safetensors, the rest as JSON, checked when read.

`checkpoints/000007.safetensors` holds every tensor of the run, gathered from all processes.
`000007.json` describes them, with their SHA-256. The JSON file is written last: without it the
checkpoint does not count.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from eqm.files import DiskFullError, replacing
from eqm.models import with_energy
from eqm.models.network import build_empty
from eqm.models.pretrained import write_pretrained
from eqm.train.config import TrainConfig
from eqm.train.disk_space import bytes_of, lack_of_space, refuse
from eqm.train.distributed import is_main, on_main
from eqm.train.state import TrainingState, average_of, load_tensors, start, tensors_of

CHECKPOINTS, BEST, VERSION = "checkpoints", "best", 1
FREE_TO_CHANGE = {
    *("name", "images", "sampling", "device", "threads", "compile", "parallel", "micro_batch"),
    *("activation_checkpointing", "checkpoint_every", "keep_checkpoints", "max_bad_steps"),
    *("eval_every", "stop_after", "trackers"),
    # The data are compared by their fingerprint, wherever they are.
    *("data.path", "data.name", "data.broken", "data.workers", "data.cache_mb"),
    *(
        "data.split",
        "data.labels_from",
        "data.layout",
        "data.range",
        "data.standardise",
        "data.values",
    ),
}
"""Settings, or groups of settings, that may change when a run is resumed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Header:
    """The content of the JSON file of a checkpoint."""

    settings: dict[str, Any]
    images: int
    skipped: int
    rollbacks: int
    tensors: dict[str, tuple[list[int], str]]
    """Shape and dtype of each tensor."""
    sha256: str
    """Digest of the file of tensors."""
    version: int = VERSION
    own_sha256: str = ""
    """Digest of the rest of the JSON."""


def save(state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]) -> None:
    """Returns nothing; writes a checkpoint and the averaged weights to `folder`.

    `data` describes the data and is stored with the weights. The newest `config.keep_checkpoints`
    checkpoints are kept. All processes must call this, and the first one writes. Raises
    DiskFullError if the disk has too little space, and OSError if it cannot be written; the earlier
    files stay.
    """
    if full := save_if_it_fits(state, config, folder, data=data):
        on_main(lambda: refuse(full))


def save_if_it_fits(
    state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]
) -> str:
    """An empty text after saving as `save` does, or a sentence if the disk has too little space."""
    if full := lack_of_space(folder, bytes_of(state)):
        return full
    tensors = _gathered(tensors_of(state))
    skipped = int(state.skipped)

    def write() -> None:
        numbers = _numbers(folder)
        number = max(numbers, default=0) + 1
        _sweep(folder, set(numbers))
        with replacing(_tensor_file(folder, number)) as path:
            save_file(tensors, path)
            digest = _sha256(path)
        kinds = {
            name: (list(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in tensors.items()
        }
        settings = settings_of(config, data)
        header = Header(settings, state.images, skipped, state.rollbacks, kinds, digest)
        header = replace(header, own_sha256=_own_sha256(header))
        with replacing(_header_file(folder, number)) as path:
            path.write_text(json.dumps(asdict(header)) + "\n", encoding="utf-8")
        for old in sorted(numbers, reverse=True)[config.keep_checkpoints - 1 :]:
            _header_file(folder, old).unlink(missing_ok=True)
            _tensor_file(folder, old).unlink(missing_ok=True)
        _write_weights(tensors, state, config, folder, data, {})

    def try_to_write() -> str:
        try:
            write()
        except DiskFullError as error:
            _sweep(folder, set(_numbers(folder)))
            return str(error)
        return ""

    return on_main(try_to_write)


def has_weights(folder: Path, images: int) -> bool:
    """Whether `folder` holds averaged weights that were saved after so many images."""

    def found() -> bool:
        try:
            description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            seen = description["metadata"]["training"]["images_seen"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return seen == images and (folder / "model.safetensors").is_file()

    return on_main(found)


def load(
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    *,
    data: dict[str, Any],
    network: nn.Module | None = None,
) -> TrainingState:
    """The state of the newest checkpoint in `folder`, or a fresh one if there is none.

    A damaged checkpoint is reported, and the one before is loaded. Raises ValueError if no checkpoint
    can be read, and if the run has other settings or data. `network` is that of `start`.
    """
    state = start(config, device, network)
    go_back(state, config, folder, data=data)
    return state


def go_back(
    state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]
) -> None:
    """Returns nothing; loads the newest readable checkpoint into `state`, or a fresh state.

    Raises ValueError as `load` does."""
    found = on_main(lambda: _newest(config, folder, data))
    if found is None:
        if state.images:
            _put(
                state, Header({}, 0, 0, 0, {}, ""), dict(tensors_of(_unsharded(config, state))).get
            )
        return
    number, header = found
    if is_main():
        with safe_open(_tensor_file(folder, number), framework="pt") as file:
            _put(state, header, file.get_tensor)
    else:
        _put(state, header, lambda name: None)


def keep_best(state: TrainingState, value: float, *, lower: bool = True) -> bool:
    """Whether `value` is the best of the run; if so, the averaged weights are saved in `best`.

    The folder `best` is inside the run's folder and holds a model with the value in its metadata.
    `lower` says whether lower is better. All processes must call this. Raises ValueError for a state
    that `train` did not make.
    """
    if state.run is None:
        raise ValueError("keep_best needs a run of eqm.train.train, which has a folder")
    run = state.run
    best = run.folder / BEST

    def better() -> bool:
        before = _best_value(best)
        return value == value and (before is None or (value < before if lower else value > before))

    if not on_main(better):
        return False
    tensors = _gathered(average_of(state))
    on_main(
        lambda: _write_weights(tensors, state, run.config, best, run.data, {"best": float(value)})
    )
    return True


def settings_of(config: TrainConfig, data: dict[str, Any]) -> dict[str, Any]:
    """The settings and the description of the data by name, without the names of the classes."""
    found = {f"data.{name}": value for name, value in data.items() if name != "classes"}
    return config.flat() | found


def _put(state: TrainingState, header: Header, read: Callable[[str], Tensor | None]) -> None:
    load_tensors(state, header.tensors, read)
    state.images, state.rollbacks = header.images, header.rollbacks
    state.skipped.fill_(header.skipped)
    state.bad_steps.zero_()


def _unsharded(config: TrainConfig, state: TrainingState) -> TrainingState:
    whole = replace(config, parallel="ddp", activation_checkpointing=False)
    return start(whole, torch.device("cpu"), state.network)


def _gathered(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors on the CPU, on process 0; empty on the others."""
    tensors = {}
    for name, tensor in named:
        if is_main():
            tensors[name] = tensor.detach().cpu().contiguous()
    return tensors


def _write_weights(
    tensors: dict[str, Tensor],
    state: TrainingState,
    config: TrainConfig,
    folder: Path,
    data: dict[str, Any],
    more: dict[str, Any],
) -> None:
    network = build_empty(config.model) if state.network is None else deepcopy(state.network)
    model = with_energy(network, config.objective.energy)
    average = {
        name.removeprefix("average."): value
        for name, value in tensors.items()
        if name.startswith("average.")
    }
    model.load_state_dict(average, assign=True)
    about = {
        "data": data,
        "sampling": asdict(config.sampling),
        "training": {"images_seen": state.images, **config.flat()},
    }
    write_pretrained(model, folder, metadata=about | more)


def _best_value(folder: Path) -> float | None:
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return float(description["metadata"]["best"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        _log.warning("%s cannot be read: the next validation replaces it", folder)
        return None


def _newest(config: TrainConfig, folder: Path, data: dict[str, Any]) -> tuple[int, Header] | None:
    numbers = sorted(_numbers(folder), reverse=True)
    damaged = []
    for number in numbers:
        header = _readable(folder, number)
        if header is None:
            damaged.append(number)
            continue
        _check_same(header.settings, settings_of(config, data), folder)
        for bad in damaged:
            path = _header_file(folder, bad)
            _log.warning("%s is damaged: going on from the checkpoint before", path)
            path.rename(path.with_suffix(".damaged"))  # ignored from now on
        return number, header
    if numbers:
        raise ValueError(
            f"{folder / CHECKPOINTS} holds no readable checkpoint (damaged or of another program): "
            "move it away to start again, or choose another folder"
        )
    return None


def _readable(folder: Path, number: int) -> Header | None:
    """The header of a checkpoint, or None if a file is damaged."""
    try:
        header = Header(**json.loads(_header_file(folder, number).read_text(encoding="utf-8")))
        intact = (
            header.version == VERSION
            and header.own_sha256 in ("", _own_sha256(header))
            and header.sha256 == _sha256(_tensor_file(folder, number))
        )
    except (OSError, ValueError, TypeError):
        return None
    return header if intact else None


def _check_same(saved: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    different = [
        f"{name} was {saved.get(name)} and is now {wanted.get(name)}"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
        and FREE_TO_CHANGE.isdisjoint((name, name.partition(".")[0]))
    ]
    if different:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(different)}): "
            "choose another folder, or the same settings to resume it"
        )


def _numbers(folder: Path) -> list[int]:
    files = (folder / CHECKPOINTS).glob("*.json")
    return [int(file.stem) for file in files if file.stem.isdecimal()]


def _sweep(folder: Path, numbers: set[int]) -> None:
    """Removes the tensors of checkpoints that were not completed."""
    for path in (folder / CHECKPOINTS).glob("*.safetensors"):
        name = re.fullmatch(r"([0-9]{6,})\.safetensors", path.name)
        if name and int(name[1]) not in numbers:
            path.unlink(missing_ok=True)


def _tensor_file(folder: Path, number: int) -> Path:
    return folder / CHECKPOINTS / f"{number:06d}.safetensors"


def _header_file(folder: Path, number: int) -> Path:
    return folder / CHECKPOINTS / f"{number:06d}.json"


def _own_sha256(header: Header) -> str:
    text = json.dumps(asdict(replace(header, own_sha256="")))
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
