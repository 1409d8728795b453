"""Weights in a folder: model.safetensors beside config.json, on disk or on the Hugging Face Hub."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eqm.energy import DotEnergy, Energy, NormEnergy
from eqm.files import replacing
from eqm.models.config import NetworkConfig
from eqm.models.inference import Frozen
from eqm.models.network import Network
from eqm.registry import lookup, name_of, names

_BUNDLED = Path(__file__).parent / "weights"
"""Trained models of the recipes, small enough to come with the package."""
_WEIGHTS, _CONFIG, _VERSION = "model.safetensors", "config.json", 1
_ENERGIES: dict[str, type[Energy]] = {"dot": DotEnergy, "norm": NormEnergy}


def build(config: NetworkConfig) -> Network:
    """The freshly initialised network of `config`, a field.

    Raises ValueError if no registered network has a config of this class.

    >>> from eqm.models import MLPConfig
    >>> sum(p.numel() for p in build(MLPConfig(shape=(2,), width=8, depth=1)).parameters())
    338
    """
    for name in names("network"):
        if config_type(name) is type(config):
            network: Network = lookup("network", name)(config)
            return network
    raise ValueError(
        f"config must be the config of a registered network ({', '.join(names('network'))}); "
        f"got {type(config).__name__}"
    )


def build_empty(config: NetworkConfig) -> Network:
    """The network of `config` on the meta device, without memory for its weights.

    A network that reads tensors while it is built is on the CPU instead. Raises as `build` does.
    """
    try:
        with torch.device("meta"):
            return build(config)
    except NotImplementedError:
        with torch.random.fork_rng(devices=[]):
            return build(config)


def config_type(name: str) -> type[NetworkConfig]:
    """The config class of the network registered under `name`, as its annotation `config` says.

    Raises ValueError for an unknown name, and for a network without this annotation.
    """
    network = lookup("network", name)
    for cls in network.__mro__:
        if "config" in inspect.get_annotations(cls):
            found = inspect.get_annotations(cls, eval_str=True)["config"]
            if isinstance(found, type) and issubclass(found, NetworkConfig):
                return found
            break
    raise ValueError(
        f"the network {name} must name its config class: write `config: MineConfig` in the class "
        f"{network.__name__}, with a dataclass MineConfig derived from eqm.models.NetworkConfig"
    )


def save_pretrained(
    model: nn.Module, folder: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Returns nothing; writes model.safetensors and config.json into `folder`.

    `model` is a registered network or one of `eqm.energy`'s energies around it, compiled,
    wrapped for distributed training or neither; what is written is the same. The tensors are the
    network's, so implicit weights can start an energy. `metadata` is anything JSON can hold.
    Both files are written beside their places and then renamed: an interruption while writing leaves the old.
    Raises ValueError for a network that is not registered, and for metadata JSON cannot hold.
    """
    network: Any = _unwrap(model)
    energy = "implicit"
    if isinstance(network, Energy):
        energy, network = network.kind, _unwrap(network.net)
    if energy not in ("implicit", *_ENERGIES):
        raise ValueError(f"the energy must be of the kind dot or norm; got {energy}")
    if isinstance(network, Frozen):
        raise ValueError(
            "model must not be one for inference: save the model that it was made from"
        )
    description = {
        "format": "eqm",
        "version": _VERSION,
        "architecture": name_of("network", type(network)),
        "network": asdict(network.config),
        "energy": energy,
        "metadata": dict(network.metadata if metadata is None else metadata),
    }
    try:
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be what JSON can hold; got {error}") from None
    tensors = {
        clean_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    folder = Path(folder)
    # The weights take their place first: who reads a new description finds what it describes.
    with replacing(folder / _CONFIG) as config, replacing(folder / _WEIGHTS) as weights:
        config.write_text(text, encoding="utf-8")
        save_file(tensors, weights, metadata={"format": "pt"})


def store_metadata(folder: str | os.PathLike[str], changes: Mapping[str, Any]) -> None:
    """Returns nothing; replaces some entries of the metadata stored in `folder`, and leaves the
    weights alone.

    Raises ValueError as `from_pretrained` does, and for metadata JSON cannot hold.
    """
    path = Path(folder) / _CONFIG
    description = _read_description(path)
    description["metadata"] |= changes
    try:
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be what JSON can hold; got {error}") from None
    with replacing(path) as config:
        config.write_text(text, encoding="utf-8")


def from_pretrained(
    name: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> Network | Energy:
    """The saved network or energy in eval mode on `device`, with its `.metadata`.

    `name` is a folder written by `save_pretrained`, the name of a model that comes with the package
    (`fashion-mnist`, `mnist-5k`, `openmoji-32`), or `owner/name` of a model on the Hugging Face Hub, of which
    these two files are downloaded. The dtype is that of the file, float32 for what comes with the
    package, and the parameters stay trainable.
    Raises ValueError where the folder, a file or a tensor is missing, damaged or of another kind.
    """
    folder = folder_of(os.fspath(name))
    description = _read_description(folder / _CONFIG)
    path = folder / _WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} must hold {_WEIGHTS}; it does not: save or download it again")
    try:
        tensors = load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} must be a complete safetensors file; got {error}: save or download it again"
        ) from None
    if folder.parent == _BUNDLED:  # where float16 saves room
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    network = load_weights(_network_config(description, folder / _CONFIG), tensors, str(path))
    network.metadata = description["metadata"]
    return with_energy(network, description["energy"]).eval().to(device)


def bundled() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.parent.name for path in _BUNDLED.glob(f"*/{_CONFIG}"))


def with_energy(network: Network, kind: str) -> Network | Energy:
    """The network itself for "implicit", else its energy of the kind "dot" or "norm"."""
    return network if kind == "implicit" else _ENERGIES[kind](network)


def load_weights(config: NetworkConfig, tensors: Mapping[str, Tensor], source: str) -> Network:
    """The network of `config` that owns `tensors`; their dtype and device are kept.

    Raises ValueError, naming `source`, where tensors are missing, unexpected, of wrong shape or not
    floating point.
    """
    network = build_empty(config)
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
    """The name of a tensor without what torch.compile and data-parallel wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def _unwrap(model: nn.Module) -> nn.Module:
    for wrapper in ("_orig_mod", "module"):
        if isinstance(inner := getattr(model, wrapper, None), nn.Module):
            return _unwrap(inner)
    return model


def folder_of(name: str) -> Path:
    """Where the model called `name` lies, downloaded if need be; ValueError where there is none."""
    if Path(name).is_dir():
        return Path(name)
    if name in bundled():
        return _BUNDLED / name
    if Path(name).exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ValueError(
            "expected a folder, a model that comes with eqm "
            f"({', '.join(bundled())}) or a Hub name such as owner/name; got {name}"
        )
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=[_WEIGHTS, _CONFIG]))
    except Exception as error:  # the Hub's client raises its own, its transport's and OSError
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{name} is no local folder and could not be downloaded from the Hugging Face Hub: "
            f"{reason}"
        ) from error


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        runs = (path.parent / "log.jsonl").exists()
        advice = "wait until the run has saved its weights" if runs else "save or download it again"
        raise ValueError(f"{path.parent} must hold {_CONFIG}; it does not: {advice}") from None
    except ValueError as error:
        raise ValueError(f"{path} must be JSON; {error}: save or download it again") from None
    if not isinstance(description, dict) or description.get("format") != "eqm":
        raise ValueError(f'{path} must say "format": "eqm"; it does not: it is not a model of eqm')
    version = description.get("version")
    if version != _VERSION:
        raise ValueError(f"{path} must have version {_VERSION}; got {version!r}: upgrade eqm")
    energy = description.setdefault("energy", "implicit")
    if energy not in ("implicit", *_ENERGIES):
        known = ", ".join(("implicit", *_ENERGIES))
        raise ValueError(f"{path} must have an energy among {known}; got {energy!r}")
    if not isinstance(description.setdefault("metadata", {}), dict):
        raise ValueError(f"{path} must have an object as metadata; got {description['metadata']!r}")
    for name in ("data", "training"):
        if not isinstance(part := description["metadata"].get(name) or {}, dict):
            raise ValueError(f"{path} must have an object as metadata.{name}; got {part!r}")
    return description


def _network_config(description: Mapping[str, Any], path: Path) -> NetworkConfig:
    name, network = description.get("architecture"), description.get("network")
    if not isinstance(name, str):
        raise ValueError(f"{path} must have the name of a network as architecture; got {name!r}")
    try:
        config_class = config_type(name)
    except ValueError as error:
        raise ValueError(f"{path} needs a network that is not registered; {error}") from None
    if not isinstance(network, dict):
        raise ValueError(f"{path} must have an object as network; got {network!r}")
    known = {field.name for field in fields(config_class)}
    if unknown := sorted(network.keys() - known):
        raise ValueError(
            f"{path} must describe its {name} with {', '.join(sorted(known))}; "
            f"got {', '.join(unknown)}"
        )
    try:
        return config_class(**{key: _tuples(value) for key, value in network.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must describe a possible {name}; {error}") from None


def _tuples(value: Any) -> Any:
    """JSON has lists where configs have tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
