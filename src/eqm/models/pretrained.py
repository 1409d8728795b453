"""Weights in a folder: model.safetensors beside config.json, on disk or on the Hugging Face Hub."""

from __future__ import annotations

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
from eqm.models.config import MLPConfig, NetworkConfig, TransformerConfig, UNetConfig
from eqm.models.mlp import MLP
from eqm.models.network import Network
from eqm.models.transformer import Transformer
from eqm.models.unet import UNet

_BUNDLED = Path(__file__).parent / "weights"
"""Trained models of the recipes, small enough to come with the package."""
_WEIGHTS, _CONFIG, _VERSION = "model.safetensors", "config.json", 1
_ARCHITECTURES: dict[str, tuple[type[NetworkConfig], type[Network]]] = {
    "transformer": (TransformerConfig, Transformer),
    "unet": (UNetConfig, UNet),
    "mlp": (MLPConfig, MLP),
}
_ENERGIES: dict[str, type[Energy]] = {"dot": DotEnergy, "norm": NormEnergy}


def build(config: NetworkConfig) -> Network:
    """The freshly initialised network of `config`, a field.

    Raises ValueError if `config` is no network config.

    >>> sum(p.numel() for p in build(MLPConfig(shape=(2,), width=8, depth=1)).parameters())
    338
    """
    for config_type, network_type in _ARCHITECTURES.values():
        if isinstance(config, config_type):
            return network_type(config)
    raise ValueError(
        f"config must be a TransformerConfig, UNetConfig or MLPConfig; got {type(config).__name__}"
    )


def save_pretrained(
    model: nn.Module, folder: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Returns nothing; writes model.safetensors and config.json into `folder`.

    `model` is a network of this package or one of `eqm.energy`'s energies around it, compiled,
    wrapped for distributed training or neither; what is written is the same. The tensors are the
    network's, so implicit weights can start an energy. `metadata` is anything JSON can hold.
    Both files are written beside their places and then renamed: an interruption while writing leaves the old.
    Raises ValueError for another model, a class derived from these included, as `from_pretrained` could
    not make it again, and for metadata JSON cannot hold.
    """
    model = _unwrap(model)
    energy = str(getattr(model, "kind", "implicit"))
    if isinstance(net := getattr(model, "net", None), nn.Module):
        model = _unwrap(net)
    known = type(model).__name__.lower() in _ARCHITECTURES and energy in ("implicit", *_ENERGIES)
    if not (isinstance(model, Transformer | UNet | MLP) and known):
        raise ValueError(
            "model must be a Transformer, UNet or MLP, or a DotEnergy or NormEnergy of one; "
            f"got {type(model).__name__}: save its state_dict, and build it yourself to load it"
        )
    description = {
        "format": "eqm",
        "version": _VERSION,
        "architecture": type(model).__name__.lower(),
        "network": asdict(model.config),
        "energy": energy,
        "metadata": dict(model.metadata if metadata is None else metadata),
    }
    try:
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be what JSON can hold; got {error}") from None
    tensors = {
        clean_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
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
    return with_energy(network, description["energy"]).eval()


def bundled() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.parent.name for path in _BUNDLED.glob(f"*/{_CONFIG}"))


def with_energy(network: Network, kind: str) -> Network | Energy:
    """The network itself for "implicit", else its energy of the kind "dot" or "norm"."""
    return network if kind == "implicit" else _ENERGIES[kind](network)


def load_weights(config: NetworkConfig, tensors: Mapping[str, Tensor], source: str) -> Network:
    """The network of `config` that owns `tensors`; their dtype and device are kept.

    Raises ValueError, naming `source`, where tensors are missing, unexpected, of wrong shape or of
    whole numbers.
    """
    with torch.device("meta"):
        network = build(config)
    expected = network.state_dict()
    faults = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    faults += [f"{name} is unexpected" for name in tensors.keys() - expected.keys()]
    faults += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    faults += [
        f"{name} is of {tensor.dtype}, not floating point"
        for name, tensor in tensors.items()
        if name in expected and not tensor.is_floating_point()
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(
            f"{source} must hold the tensors of its {type(network).__name__}; "
            f"{', '.join(sorted(faults)[:3])}{more}"
        )
    network.load_state_dict(dict(tensors), assign=True)
    return network


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
    architecture, network = description.get("architecture"), description.get("network")
    if not isinstance(architecture, str) or architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ValueError(f"{path} must have an architecture among {known}; got {architecture!r}")
    if not isinstance(network, dict):
        raise ValueError(f"{path} must have an object as network; got {network!r}")
    config_type, _ = _ARCHITECTURES[architecture]
    known_keys = {field.name for field in fields(config_type)}
    if unknown := sorted(network.keys() - known_keys):
        raise ValueError(
            f"{path} must describe its {architecture} with {', '.join(sorted(known_keys))}; "
            f"got {', '.join(unknown)}"
        )
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in network.items()
    }
    try:
        return config_type(**values)
    except ValueError as error:
        raise ValueError(f"{path} must describe a possible {architecture}; {error}") from None
