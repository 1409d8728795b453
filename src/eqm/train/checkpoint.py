"""Checkpoints of a run: tensors as safetensors, the rest as JSON, checked when read.

`checkpoints/000007.safetensors` holds every tensor of the run, gathered from all processes.
`000007.json` describes them, with their SHA-256. The JSON file is written last: without it the
checkpoint does not count. `best/000000640.safetensors` is a copy of the weights in the run's folder
`best`, saved after 640 images. A damaged checkpoint is moved to the folder `damaged-000007`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import MISSING, asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eqm.files import DiskFullError, replacing
from eqm.models import from_pretrained, with_energy
from eqm.models.card import write_card
from eqm.models.network import build_empty
from eqm.models.pretrained import write_pretrained
from eqm.schema import convert, read_json
from eqm.tensor_files import open_tensors, read_tensors
from eqm.train.config import CHECKPOINTS, ObjectiveConfig, TrainConfig
from eqm.train.disk_space import bytes_of, lack_of_space
from eqm.train.distributed import is_main, on_main, refuse
from eqm.train.ema import FOLDER, sha256_of
from eqm.train.state import Best, TrainingState, average_of, load_tensors, start, tensors_of

BEST, VERSION = "best", 1
FREE_TO_CHANGE = {
    *("name", "images", "sampling", "device", "threads", "compile", "parallel", "micro_batch"),
    *("activation_checkpointing", "checkpoint_every", "keep_checkpoints", "max_bad_steps"),
    *("eval_every", "stop_after", "trackers"),
    # The data are compared by their fingerprint, wherever they are.
    *("data.path", "data.name", "data.broken", "data.workers", "data.cache_mb"),
    *(
        "data.split",
        "data.labels_from",
        "data.captions",
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
    sums: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0], [0.0, 0.0]])
    lowest: float | None = None
    """None for infinity, which JSON does not have."""
    worse: int = 0
    stopping: bool = False
    best: tuple[float, int, str] | None = None
    snapshots: dict[str, str] = field(default_factory=dict)
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
        refuse(DiskFullError(full))


def save_if_it_fits(
    state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]
) -> str:
    """An empty text after saving as `save` does, or a sentence if the disk has too little space."""
    if full := lack_of_space(folder, bytes_of(state)):
        return full
    tensors = _gathered(tensors_of(state))
    skipped, sums = int(state.skipped), state.sums.nan_to_num().tolist()  # JSON has no infinity

    def write() -> None:
        numbers = _numbers(folder)
        number = max(numbers, default=0) + 1
        _sweep(folder, set(numbers), state)
        with replacing(_tensor_file(folder, number)) as path:
            save_file(tensors, path)
            digest = sha256_of(path)
        kinds = {
            name: (list(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in tensors.items()
        }
        settings = settings_of(config, data)
        header = Header(
            *(settings, state.images, skipped, state.rollbacks, kinds, digest),
            sums=sums,
            lowest=state.lowest if math.isfinite(state.lowest) else None,
            worse=state.worse,
            stopping=state.stopping,
            best=None if state.best is None else astuple(state.best),
            snapshots=dict(state.snapshots),
        )
        header = replace(header, own_sha256=_own_sha256(asdict(header)))
        with replacing(_header_file(folder, number)) as path:
            path.write_text(json.dumps(asdict(header)) + "\n", encoding="utf-8")
        for old in sorted(numbers, reverse=True)[config.keep_checkpoints - 1 :]:
            _header_file(folder, old).unlink(missing_ok=True)
            _tensor_file(folder, old).unlink(missing_ok=True)
        _write_weights(_averaged(tensors), state, config, folder, _about(state, config, data))

    def try_to_write() -> str:
        try:
            write()
        except DiskFullError as error:
            _sweep(folder, set(_numbers(folder)), state)
            return str(error)
        return ""

    return on_main(try_to_write)


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
        with open_tensors(_tensor_file(folder, number)) as file:
            _put(state, header, file.get_tensor)
    else:
        _put(state, header, lambda name: None)
    if header.best is None:
        state.best = on_main(lambda: _best_of(folder / BEST, state))
    asked = {"images": config.images, "stop_after": config.stop_after}
    same = all(header.settings.get(name) == value for name, value in asked.items())
    state.stopping = (header.stopping and same) or 0 < config.stop_after <= state.worse


def mend(state: TrainingState, config: TrainConfig, folder: Path, *, data: dict[str, Any]) -> None:
    """Returns nothing; writes what is damaged or missing of the files that go with a checkpoint.

    These are the averaged weights, the folder `best`, and the last snapshot of the averages. `state` is
    that of the newest checkpoint. Each is reported; what no checkpoint holds is reported, too. All
    processes must call this.
    """
    average = _averaged(_gathered(average_of(state)))
    on_main(lambda: _mend_weights(average, state, config, folder, data))
    on_main(lambda: mend_best(state, config, folder, data))
    lost = on_main(lambda: _lost_snapshots(state, folder))
    last = [name for name in lost if int(name.partition("-")[0]) == state.images]
    if last:
        state.averages.save(folder / FOLDER, images=state.images, write=is_main())
    if last and is_main():
        _log.warning(
            "%s in %s were damaged or missing: written again from the checkpoint",
            *(", ".join(last), folder / FOLDER),
        )
    if gone := [name for name in lost if name not in last]:
        refused = ", ".join(gone[:3]) + ", ..." * (len(gone) > 3)
        if is_main():
            _log.warning(
                "%s in %s are damaged or missing, and the checkpoint holds the last snapshot alone: "
                "train in another folder to get them again",
                *(refused, folder / FOLDER),
            )


def keep_best(state: TrainingState, value: float, *, lower: bool = True) -> bool:
    """Whether `value` is the best of the run; if so, the averaged weights are saved in `best`.

    The folder `best` is inside the run's folder and holds a model with the value in its metadata.
    `lower` says whether lower is better. All processes must call this. Raises ValueError for a state
    that `train` did not make.
    """
    if state.run is None:
        raise ValueError("keep_best needs a run of eqm.train.train, which has a folder")
    run, before = state.run, state.best

    def better() -> bool:
        if not math.isfinite(value):
            return False
        return before is None or (value < before.value if lower else value > before.value)

    if not on_main(better):
        return False
    tensors = _averaged(_gathered(average_of(state)))

    def write() -> Best:
        best = Best(float(value), state.images, digest_of(tensors))
        with replacing(_best_file(run.folder, best.images)) as path:
            save_file(tensors, path)
        about = _about(state, run.config, run.data) | {"best": best.value}
        _write_weights(tensors, state, run.config, run.folder / BEST, about)
        return best

    state.best = on_main(write)
    return True


def settings_of(config: TrainConfig, data: dict[str, Any]) -> dict[str, Any]:
    """The settings and the description of the data by name, without the names of classes and the words."""
    long = ("classes", "text")
    found = {f"data.{name}": value for name, value in data.items() if name not in long}
    return config.flat() | found


def _defaults(config: TrainConfig) -> dict[str, Any]:
    """The settings that a run has from before they existed."""
    model = {each.name: each.default for each in fields(config.model)}
    known = {name: value for name, value in model.items() if value is not MISSING}
    return replace(TrainConfig(), model=replace(config.model, **known)).flat()


def _put(state: TrainingState, header: Header, read: Callable[[str], Tensor | None]) -> None:
    load_tensors(state, header.tensors, read)
    state.images, state.rollbacks = header.images, header.rollbacks
    state.skipped.fill_(header.skipped)
    state.bad_steps.zero_()
    state.sums.copy_(torch.tensor(header.sums))
    state.lowest = math.inf if header.lowest is None else header.lowest
    state.worse, state.snapshots = header.worse, dict(header.snapshots)
    state.settings = header.settings
    state.best = None if header.best is None else Best(*header.best)


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


def _averaged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights among the tensors of a run, by their names in the model."""
    return {
        name.removeprefix("average."): value
        for name, value in tensors.items()
        if name.startswith("average.")
    }


def _about(state: TrainingState, config: TrainConfig, data: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the averaged weights."""
    return {
        "data": data,
        "sampling": asdict(config.sampling),
        "training": {"images_seen": state.images, **config.flat()},
    }


def _write_weights(
    average: dict[str, Tensor],
    state: TrainingState,
    config: TrainConfig,
    folder: Path,
    about: dict[str, Any],
) -> None:
    network = build_empty(config.model) if state.network is None else deepcopy(state.network)
    model = with_energy(network, config.objective.energy)
    model.load_state_dict(average, assign=True)
    write_pretrained(model, folder, metadata=about)


def _weights_in(folder: Path, state: TrainingState) -> tuple[dict[str, Any], int, str] | None:
    """Metadata, images seen and digest of the averaged weights in `folder`; None if they are damaged."""
    if not folder.is_dir():  # otherwise run/best would be a name on the Hugging Face Hub
        return None
    try:
        if state.network is None:
            model: nn.Module = from_pretrained(folder)
        else:
            model = from_pretrained(folder, network=deepcopy(state.network))
        about: Any = getattr(model, "metadata", None)
        images = about["training"]["images_seen"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (about, images, digest_of(model.state_dict())) if isinstance(images, int) else None


def _best_of(best: Path, state: TrainingState) -> Best | None:
    """The best weights of a run whose checkpoint does not know them; None if they are not of the run."""
    found = _weights_in(best, state)
    if found is None:
        return None
    about, images, digest = found
    value = about.get("best")
    return (
        Best(value, images, digest) if isinstance(value, float) and images <= state.images else None
    )


def _mend_weights(
    average: dict[str, Tensor],
    state: TrainingState,
    config: TrainConfig,
    folder: Path,
    data: dict[str, Any],
) -> None:
    saved, expected = state.settings, _about(state, config, data)
    expected["training"] |= {k: v for k, v in saved.items() if not k.startswith("data.")}
    expected["sampling"] = {k: saved[f"sampling.{k}"] for k in expected["sampling"]}
    found = _weights_in(folder, state)
    if found is not None and found[1:] == (state.images, digest_of(average)):
        about = found[0]
        # `eqm tune` changes the sampling of a model.
        tuned = about.get("sampling") if "tuning" in about else expected["sampling"]
        if (
            about.get("sampling") == tuned
            and _has_settings(about, saved)
            and about.get("data", {}).get("fingerprint") == data.get("fingerprint")
        ):
            _mend_card(folder)
            return
    _write_weights(average, state, config, folder, expected)
    _log.warning(
        "the weights in %s were damaged or missing: written again from the checkpoint", folder
    )


def mend_best(
    state: TrainingState, config: TrainConfig, folder: Path, data: dict[str, Any]
) -> None:
    """Returns nothing; makes the folder `best` hold the weights that `state` knows as the best.

    A killed run may have left later ones. Damage is reported."""
    if state.best is None:
        return
    value, images, digest = astuple(state.best)
    found = _weights_in(folder / BEST, state)
    fixed = {name: setting for name, setting in state.settings.items() if not _is_free(name)}
    if found is not None and found[1:] == (images, digest):
        about = found[0]
        if about.get("best") == value and _has_settings(about, fixed):
            _mend_card(folder / BEST)
            return
    level = logging.WARNING if found is None or found[1] <= state.images else logging.DEBUG
    try:
        tensors = read_tensors(_best_file(folder, images))
    except ValueError:
        tensors = {}
    if digest_of(tensors) != digest:
        said = "so is their copy: train in another folder to get them again"
    else:
        about = _about(replace(state, images=images), config, data) | {"best": value}
        _write_weights(tensors, state, config, folder / BEST, about)
        said = "were written again from their copy"
    _log.log(level, "the weights in %s were damaged or missing, and %s", folder / BEST, said)


def _mend_card(folder: Path) -> None:
    """The card is written after the weights, so a kill between the two leaves that of the weights before."""
    with suppress(OSError):  # a complete run may lie where nobody can write
        write_card(folder, str(folder))


def _has_settings(about: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether the metadata of weights have these settings; those of the data may have been replaced."""
    return all(
        about["training"].get(name) == value
        for name, value in settings.items()
        if not name.startswith("data.")
    )


def _is_free(name: str) -> bool:
    return not FREE_TO_CHANGE.isdisjoint((name, name.partition(".")[0]))


def _lost_snapshots(state: TrainingState, folder: Path) -> list[str]:
    """The names of the snapshots of the averages that are damaged or missing."""

    def whole(name: str, digest: str) -> bool:
        try:
            return sha256_of(folder / FOLDER / name) == digest
        except OSError:
            return False

    return [name for name, digest in state.snapshots.items() if not whole(name, digest)]


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names, dtypes, shapes and bytes of tensors on the CPU."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _newest(config: TrainConfig, folder: Path, data: dict[str, Any]) -> tuple[int, Header] | None:
    numbers = sorted(_numbers(folder), reverse=True)
    damaged = []
    for number in numbers:
        header = _readable(folder, number)
        if header is None:
            damaged.append(number)
            continue
        _check_same(_defaults(config) | header.settings, settings_of(config, data), folder)
        for bad in damaged:
            _set_aside(folder, bad)
        return number, header
    if numbers:
        raise ValueError(
            f"{folder / CHECKPOINTS} holds no readable checkpoint (damaged or of another program): "
            "move it away to start again, or choose another folder"
        )
    return None


def _readable(folder: Path, number: int) -> Header | None:
    """The header of a checkpoint, or None if a file is damaged."""
    path = _header_file(folder, number)
    try:
        content = read_json(path, dict[str, Any])
        header: Header = convert(content, Header)
        intact = (
            header.version == VERSION
            and header.own_sha256 in ("", _own_sha256(content))
            and header.sha256 == sha256_of(_tensor_file(folder, number))
        )
    except PermissionError as error:  # that is no damage
        raise OSError(f"cannot read {error.filename}: give yourself the permission") from None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return header if intact else None


def _set_aside(folder: Path, number: int) -> None:
    """Returns nothing; moves the files of a damaged checkpoint to a folder of their own."""
    damaged = folder / CHECKPOINTS / f"damaged-{number:06d}"
    while damaged.exists():
        damaged = damaged.with_name(f"{damaged.name}-again")
    damaged.mkdir()
    header = _header_file(folder, number)
    for path in (header, _tensor_file(folder, number)):  # without its header it is none
        if path.exists():
            path.rename(damaged / path.name)
    _log.warning(
        "%s is damaged: going on from the checkpoint before; its files are now in %s",
        header,
        damaged,
    )


def _check_same(saved: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    later = {f"objective.{name}": value for name, value in asdict(ObjectiveConfig()).items()}
    saved = {name: list(x) if isinstance(x, tuple) else x for name, x in later.items()} | saved
    different = [
        f"{name} was {saved.get(name)} and is now {wanted.get(name)}"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name) and not _is_free(name)
    ]
    if different:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(different)}): "
            "choose another folder, or the same settings to resume it"
        )


def _numbers(folder: Path) -> list[int]:
    files = (folder / CHECKPOINTS).glob("*.json")
    return [int(file.stem) for file in files if file.stem.isdecimal()]


def _sweep(folder: Path, numbers: set[int], state: TrainingState) -> None:
    """Removes the tensors of checkpoints that were not completed, and copies of weights that are no longer the best."""
    best = set() if state.best is None else {state.best.images}
    for number in numbers:
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = read_json(_header_file(folder, number), dict[str, Any])
            best.add(content["best"][1])
    for place, kept in ((folder / CHECKPOINTS, numbers), (folder / CHECKPOINTS / BEST, best)):
        for path in place.glob("*.safetensors"):
            name = re.fullmatch(r"([0-9]{6,})\.safetensors", path.name)
            if name and int(name[1]) not in kept:
                path.unlink(missing_ok=True)


def _best_file(folder: Path, images: int) -> Path:
    return folder / CHECKPOINTS / BEST / f"{images:09d}.safetensors"


def _tensor_file(folder: Path, number: int) -> Path:
    return folder / CHECKPOINTS / f"{number:06d}.safetensors"


def _header_file(folder: Path, number: int) -> Path:
    return folder / CHECKPOINTS / f"{number:06d}.json"


def _own_sha256(content: dict[str, Any]) -> str:
    """The digest of a header, except for its own digest."""
    return hashlib.sha256(json.dumps({**content, "own_sha256": ""}).encode()).hexdigest()
