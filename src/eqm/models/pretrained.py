"""Models in a folder: model.safetensors, config.json and a model card, local or on the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, overload

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eqm.checks import check_kind, check_path, kind_of
from eqm.devices import pick_device
from eqm.energy import DotEnergy, Energy, NormEnergy
from eqm.files import check_folder, replacing, sweep
from eqm.models.card import write_card
from eqm.models.config import NetworkConfig
from eqm.models.inference import Frozen
from eqm.models.network import Network, build, build_empty, config_type
from eqm.registry import did_you_mean, name_of
from eqm.schema import convert, read_json, shown
from eqm.tensor_files import read_tensors

_BUNDLED = Path(__file__).parent / "weights"  # trained models that come with the package
_WEIGHTS, _CONFIG, _CARD, _VERSION = "model.safetensors", "config.json", "README.md", 1
_ENERGIES: dict[str, type[Energy]] = {"dot": DotEnergy, "norm": NormEnergy}
_Description = TypedDict(
    "_Description",
    {
        "format": str,
        "version": int,
        "architecture": str | None,
        "class": NotRequired[str],
        "network": dict[str, Any],
        "energy": Literal["implicit", "dot", "norm"],
        "metadata": dict[str, Any],
    },
)
"""The content of config.json."""
Module = TypeVar("Module", bound=nn.Module)


def save_pretrained(
    model: nn.Module, folder: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Returns nothing; writes model.safetensors, config.json and README.md into `folder`.

    `model` is any module, or a `DotEnergy` or `NormEnergy` of one. A registered network is loaded by
    its name; another module must be passed to `from_pretrained`. Wrappers of torch.compile and of
    distributed training are left out, and an energy is saved as its network, so implicit weights
    can start an energy. `metadata` is anything JSON can hold; by default the model's own.

    `folder` is new, empty, a model or a run of eqm; hidden files and a README.md may be in it. Each file is
    written beside its place and then renamed, so an interruption leaves the old one. README.md is a model
    card; one that eqm did not write is left as it is.
    Raises ValueError for another folder, a model made by `for_inference`, an energy of another kind,
    and metadata that JSON cannot hold; OSError if it cannot be written.
    """
    check_kind(nn.Module, model=model)
    _check_own(Path(folder))
    write_pretrained(model, folder, metadata=metadata)


def write_pretrained(
    model: nn.Module, folder: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Returns nothing; does what `save_pretrained` does, for a folder that was checked before."""
    network, energy = _unwrap(model), "implicit"
    if isinstance(network, Energy):
        energy, network = network.kind, _unwrap(network.net)
    if energy not in ("implicit", *_ENERGIES):
        raise ValueError(f"the energy must be of the kind dot or norm; got {energy}: save its .net")
    if isinstance(network, Frozen):
        raise ValueError("model must not be one for inference: save the model it was made from")
    config = getattr(network, "config", None)
    about = getattr(network, "metadata", {}) if metadata is None else metadata
    description = {
        "format": "eqm",
        "version": _VERSION,
        **_architecture(type(network)),
        "network": asdict(config) if isinstance(config, NetworkConfig) else {},
        "energy": energy,
        "metadata": dict(about),
    }
    text = _json(description)
    folder = Path(folder)
    # The weights are renamed first, so a new config.json never stands beside old weights.
    with replacing(folder / _CONFIG) as config_file, replacing(folder / _WEIGHTS) as weights:
        config_file.write_text(text, encoding="utf-8")
        save_file(_tensors(network), weights, metadata={"format": "pt"})
    write_card(folder, str(folder))


def _check_own(folder: Path) -> None:
    beside = ("README.md", "LICENSE")
    check_folder(folder, "eqm", within=("eqm-run", "eqm-detector"), besides=beside, name="folder")
    sweep(folder)


def store_metadata(folder: str | os.PathLike[str], changes: Mapping[str, Any]) -> None:
    """Returns nothing; replaces some entries of the metadata stored in `folder`.

    Raises ValueError as `from_pretrained` does, and for metadata that JSON cannot hold.
    """
    folder = Path(folder)
    description = _read_description(folder / _CONFIG)
    _check_own(folder)
    description["metadata"] |= changes
    text = _json(description)
    with replacing(folder / _CONFIG) as config:
        config.write_text(text, encoding="utf-8")
    if (folder / _CARD).exists():
        write_card(folder, str(folder))


@overload
def from_pretrained(
    name: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> Network | Energy: ...


@overload
def from_pretrained(
    name: str | os.PathLike[str], *, network: nn.Module, device: str | torch.device = "cpu"
) -> nn.Module: ...


def from_pretrained(
    name: str | os.PathLike[str],
    *,
    network: nn.Module | None = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The saved network or energy in eval mode on `device`, with its `.metadata`.

    `name` is a folder written by `save_pretrained`, the name of a model that comes with the package
    (`fashion-mnist`, `mnist-5k`, `openmoji-32`), or `owner/name` of a model on the Hugging Face Hub.
    A network that is not registered must be given as `network`; the saved tensors are copied into
    it. Otherwise the dtype is that of the file, or float32 if the model comes with the package. The
    parameters stay trainable. The folder cannot make eqm import or run anything.
    Raises ValueError if the folder, a file or a tensor is missing, damaged or of another kind.
    """
    check_path(name=name)
    device = pick_device(str(device))
    if network is not None and not isinstance(network, nn.Module):
        raise ValueError(f"network must be a torch.nn.Module; got {kind_of(network)}")
    folder = folder_of(os.fspath(name))
    description = _read_description(folder / _CONFIG)
    path = folder / _WEIGHTS
    if not path.exists():
        raise ValueError(f"{folder} must hold {_WEIGHTS}; it does not: save or download it again")
    if network is None:
        config = _network_config(description, folder / _CONFIG)
    tensors = read_tensors(path)
    if folder.parent == _BUNDLED:  # stored in float16 to save space
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    if network is None:
        network = load_weights(config, tensors, str(path))
    else:
        _check_tensors(network, tensors, str(path))
        network.load_state_dict(tensors)
    network.metadata = description["metadata"]
    return with_energy(network, description["energy"]).eval().to(device)


def push_to_hub(
    model: nn.Module | str | os.PathLike[str], name: str, *, private: bool = False
) -> str:
    """The address of the repository `name` (owner/name) on the Hugging Face Hub with the upload.

    The repository is made if it does not exist. `model` is a folder written by `save_pretrained`,
    or a model that `save_pretrained` takes. Log in first: `hf auth login`.
    Raises ValueError as `save_pretrained` and `from_pretrained` do, and if the upload fails.
    """
    if isinstance(model, nn.Module):
        with TemporaryDirectory() as temporary:
            save_pretrained(model, temporary)
            return push_to_hub(temporary, name, private=private)
    folder = Path(model)
    _read_description(folder / _CONFIG)
    write_card(folder, name)
    try:
        from huggingface_hub import HfApi

        address = HfApi().create_repo(name, private=private, exist_ok=True)
        files = [_CARD, _CONFIG, _WEIGHTS, "detector.*"]
        HfApi().upload_folder(repo_id=name, folder_path=folder, allow_patterns=files)
    except Exception as error:  # the Hub's client raises errors of several libraries
        raise ValueError(f"{name} could not be uploaded: {_reason(error)}") from error
    return str(address)


def bundled() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.parent.name for path in _BUNDLED.glob(f"*/{_CONFIG}"))


def read_config(name: str | os.PathLike[str]) -> tuple[NetworkConfig, dict[str, Any]]:
    """The config of the network and the metadata of a saved model, without its weights.

    Raises ValueError as `from_pretrained` does.
    """
    path = folder_of(os.fspath(name)) / _CONFIG
    description = _read_description(path)
    return _network_config(description, path), description["metadata"]


def with_energy(network: Module, kind: str) -> Module | Energy:
    """The network itself for "implicit", else its energy of the kind "dot" or "norm"."""
    return network if kind == "implicit" else _ENERGIES[kind](network)


def load_weights(config: NetworkConfig, tensors: Mapping[str, Tensor], source: str) -> Network:
    """The network of `config` with `tensors` as its own; their dtype and device are kept.

    Raises ValueError, naming `source`, for tensors that are missing, unexpected, of another shape or
    not floating point.
    """
    try:
        network = build_empty(config, stored=tensors)
    except ValueError as error:
        raise ValueError(
            f"{source} does not hold the tensors of its config.json: {error}"
        ) from None
    _check_tensors(network, tensors, source)
    unsaved = {name for name, _ in network.named_buffers()} - network.state_dict().keys()
    if unsaved and network.get_buffer(unsaved.pop()).is_meta:
        with torch.random.fork_rng(devices=[]):
            network = build(config)
    network.load_state_dict(dict(tensors), assign=True)
    return network


def _check_tensors(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    expected = network.state_dict()
    faults = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    faults += [f"{name} is unexpected" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        got, wanted = tensors[name], expected[name]
        if got.shape != wanted.shape:
            faults.append(f"{name} has shape {tuple(got.shape)} instead of {tuple(wanted.shape)}")
        if wanted.is_floating_point() and not got.is_floating_point():
            faults.append(f"{name} is of {got.dtype}, not floating point")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(
            f"{source} must hold the tensors of its {type(network).__name__}; "
            f"{', '.join(sorted(faults)[:3])}{more}"
        )


def clean_name(name: str) -> str:
    """The name of a tensor without the prefixes of torch.compile and data-parallel wrappers."""
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network on the CPU; one with several names is there once for each."""
    tensors: dict[str, Tensor] = {}
    places = set()
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name.replace("_orig_mod.", "")] = tensor.clone() if place in places else tensor
        places.add(place)
    return tensors


def _unwrap(model: nn.Module) -> nn.Module:
    """A model without its wrappers: torch.compile's, and those that hold nothing but `module`."""
    children = dict(model.named_children())
    inner = children.get("_orig_mod") or (children.get("module") if len(children) == 1 else None)
    return model if inner is None else _unwrap(inner)


def _architecture(network: type[nn.Module]) -> dict[str, Any]:
    """A registered network by its name; another by its class, which is information only."""
    try:
        return {"architecture": name_of("network", network)}
    except ValueError:
        return {"architecture": None, "class": f"{network.__module__}.{network.__qualname__}"}


def _json(description: Mapping[str, Any]) -> str:
    try:
        return json.dumps(description, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be what JSON can hold; got {error}") from None


def folder_of(name: str) -> Path:
    """The folder of the model called `name`, downloaded if necessary; ValueError if there is none."""
    if Path(name).is_dir():
        return Path(name)
    if name in bundled():
        return _BUNDLED / name
    if Path(name).exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ValueError(
            "expected a folder, a model that comes with eqm "
            f"({', '.join(bundled())}) or a Hub name such as owner/name; got {name}"
            f"{did_you_mean(name, bundled())}"
        )
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=[_WEIGHTS, _CONFIG]))
    except Exception as error:  # the Hub's client raises errors of several libraries
        raise ValueError(
            f"there is no folder {name} (train it first?), and the download of {name} from the Hugging "
            f"Face Hub failed: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and "internet connection" in str(error):
        return "the Hub cannot be reached"
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _read_description(path: Path) -> dict[str, Any]:
    advice = "save or download it again"
    try:
        found = read_json(path, dict[str, Any], advice=advice)
    except FileNotFoundError:
        if (path.parent / "log.jsonl").exists():
            advice = "wait until the run has saved its weights"
        raise ValueError(f"{path.parent} must hold {_CONFIG}; it does not: {advice}") from None
    if found.get("format") != "eqm":
        raise ValueError(f'{path} must say "format": "eqm"; it does not: it is not a model of eqm')
    if (version := found.get("version")) != _VERSION:
        raise ValueError(f"{path} must have version {_VERSION}; got {shown(version)}: upgrade eqm")
    found = {"energy": "implicit", "metadata": {}, **found}
    description: dict[str, Any] = convert(found, _Description, f"{path}: ", advice=advice)
    for name in ("data", "training"):
        convert(
            description["metadata"].get(name) or {},
            dict[str, Any],
            f"{path}: ",
            name=f"metadata.{name}",
        )
    return description


def _network_config(description: Mapping[str, Any], path: Path) -> NetworkConfig:
    name = description["architecture"]
    if name is None:
        raise ValueError(
            f"{path} is of the class {shown(description.get('class'))}, which is not registered: pass "
            "network=... to from_pretrained, or put @eqm.register above the class and save again"
        )
    try:
        config_class = config_type(name)
    except ValueError as error:
        raise ValueError(f"{path} needs a network that is not registered; {error}") from None
    config: NetworkConfig = convert(
        description["network"], config_class, f"{path}: ", name="network"
    )
    return config
