"""A run on disk: tensors as safetensors, the rest as JSON, checked before it is trusted.

`checkpoints/000007.safetensors` holds every tensor of the run, whole, whatever the number of
processes; `000007.json` says what they are, with their SHA-256. The JSON takes its place last: a
checkpoint without it is none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from eqm.files import DiskFullError, replacing
from eqm.models import save_pretrained, with_energy
from eqm.models.network import build_empty
from eqm.train.config import TrainConfig
from eqm.train.disk_space import bytes_of, lack_of_space, refuse
from eqm.train.distributed import is_main, on_main
from eqm.train.state import TrainingState, average_of, load_tensors, start, tensors_of

CHECKPOINTS, BEST, VERSION = "checkpoints", "best", 1
FREE_TO_CHANGE = {
    *(
        "name",
        "images",
        "sampling",
        "device",
        "threads",
        "compile",
        "activation_checkpointing",
        "parallel",
    ),
    *(
        "micro_batch",
        "checkpoint_every",
        "keep_checkpoints",
        "max_bad_steps",
        "eval_every",
        "trackers",
    ),
    # The fingerprint tells the data, wherever they are.
    *("data.path", "data.name", "data.broken", "data.workers", "data.cache_mb"),
}
"""Settings, or groups of them, that a resumed run may have otherwise than its checkpoint."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Header:
    """What the JSON of a checkpoint says."""

    settings: dict[str, Any]
    images: int
    skipped: int
    attempt: int
    tensors: dict[str, tuple[list[int], str]]
    """Shape and dtype of each."""
    sha256: str
    """Of the file of tensors."""
    version: int = VERSION
    own_sha256: str = ""
    """Of the rest of the JSON; empty in what older programs wrote."""


def save(state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]) -> None:
    """Writes the run to `folder`: a checkpoint to go on from, averaged weights to sample from.

    `data` tells what the run is trained on, and is kept with the weights. The newest `config.keep_checkpoints`
    checkpoints stay. With several processes all must call it and the first writes. Raises OSError,
    DiskFullError when it does not fit on the disk, where it cannot be written; what was there
    before stays.
    """
    if full := save_if_it_fits(state, config, folder, data=data):
        on_main(lambda: refuse(full))


def save_if_it_fits(
    state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]
) -> str:
    """Nothing, once `save` has done its work, or the sentence that says how the disk is too small."""
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
        header = Header(settings, state.images, skipped, state.attempt, kinds, digest)
        header = replace(header, own_sha256=_own_sha256(header))
        with replacing(_header_file(folder, number)) as path:
            path.write_text(json.dumps(asdict(header)) + "\n", encoding="utf-8")
        for old in sorted(numbers, reverse=True)[config.keep_checkpoints - 1 :]:
            _header_file(folder, old).unlink(missing_ok=True)
            _tensor_file(folder, old).unlink(missing_ok=True)
        _write_weights(tensors, state, config, folder, data, {})

    def attempt() -> str:
        try:
            write()
        except DiskFullError as error:
            _sweep(folder, set(_numbers(folder)))
            return str(error)
        return ""

    return on_main(attempt)


def has_weights(folder: Path, images: int) -> bool:
    """Whether `folder` holds the weights to sample from that `save` writes after so many images."""

    def look() -> bool:
        try:
            description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            seen = description["metadata"]["training"]["images_seen"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return seen == images and (folder / "model.safetensors").is_file()

    return on_main(look)


def load(
    config: TrainConfig, folder: Path, device: torch.device, *, data: dict[str, Any]
) -> TrainingState:
    """The state that `folder` holds, or a fresh one where there is no checkpoint.

    A damaged checkpoint is said and the one before taken. Raises ValueError when none can be read,
    or the run was made with other settings or data.
    """
    state = start(config, device)
    go_back(state, config, folder, data=data)
    return state


def go_back(
    state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]
) -> None:
    """Puts the newest readable checkpoint of `folder` into `state`, or the state of a fresh run.

    Raises as `load` does."""
    found = on_main(lambda: _newest(config, folder, data))
    if found is None:
        if state.images:
            _put(state, Header({}, 0, 0, 0, {}, ""), dict(tensors_of(_unspread(config))).get)
        return
    number, header = found
    if is_main():
        with safe_open(_tensor_file(folder, number), framework="pt") as file:
            _put(state, header, file.get_tensor)
    else:
        _put(state, header, lambda name: None)


def keep_best(state: TrainingState, value: float, *, lower: bool = True) -> bool:
    """Whether `value` is the best of the run so far; if so the averaged weights go to `best`.

    `lower` says which way is better. The folder `best`, inside the run's, can be sampled from; its
    description remembers the value. With several processes all must call it. Raises ValueError for
    a state that `train` did not make.
    """
    if state.run is None:
        raise ValueError("only a run of eqm.train.train has a folder to keep its best weights in")
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
    """All that makes a run what it is, by name; what its classes are called does not."""
    found = {f"data.{name}": value for name, value in data.items() if name != "classes"}
    return config.flat() | found


def _put(state: TrainingState, header: Header, read: Callable[[str], Tensor | None]) -> None:
    load_tensors(state, header.tensors, read)
    state.images, state.attempt = header.images, header.attempt
    state.skipped.fill_(header.skipped)
    state.streak.zero_()


def _unspread(config: TrainConfig) -> TrainingState:
    return start(
        replace(config, parallel="ddp", activation_checkpointing=False), torch.device("cpu")
    )


def _gathered(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors on the CPU of process 0; nothing on the others."""
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
    model = with_energy(build_empty(config.model), config.objective.energy)
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
    save_pretrained(model, folder, metadata=about | more)


def _best_value(folder: Path) -> float | None:
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return float(description["metadata"]["best"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        _log.warning("%s cannot be read: the next evaluation takes its place", folder)
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
            path.rename(path.with_suffix(".damaged"))  # seen no more, and looked at by who likes
        return number, header
    if numbers:
        raise ValueError(
            f"{folder / CHECKPOINTS} holds no readable checkpoint (damaged or of another program): "
            "move it away to start afresh, or choose another folder"
        )
    return None


def _readable(folder: Path, number: int) -> Header | None:
    """What a checkpoint says of itself, once its tensors are what was written."""
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
            "choose another folder, or the same settings to go on"
        )


def _numbers(folder: Path) -> list[int]:
    files = (folder / CHECKPOINTS).glob("*.json")
    return [int(file.stem) for file in files if file.stem.isdecimal()]


def _sweep(folder: Path, numbers: set[int]) -> None:
    """Removes what a killed process left behind."""
    for path in (folder / CHECKPOINTS).glob(".*.part"):
        path.unlink(missing_ok=True)
    for path in (folder / CHECKPOINTS).glob("*.safetensors"):
        if not (path.stem.isdecimal() and int(path.stem) in numbers):
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
