"""The folder of a detector: its settings, its statistics, and with an encoder its network too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from msgspec import Meta
from safetensors.torch import save_file
from torch import Tensor, nn

from eqm import registry
from eqm.encoders import Encoder, about_encoder, encoder_of
from eqm.field import Field
from eqm.files import check_folder, make_folder, replacing
from eqm.models import from_pretrained
from eqm.models.pretrained import folder_of, write_pretrained
from eqm.objective import EquilibriumMatching
from eqm.sampling.model import describe
from eqm.sampling.settings import Sampling
from eqm.schema import convert, read_json, shown
from eqm.tasks.calibration import Calibration
from eqm.tasks.residuals import ResidualGaussian
from eqm.tasks.scores import AnySeed, Draws, Gammas, ScoreConfig
from eqm.tensor_files import read_tensors

if TYPE_CHECKING:
    from eqm.tasks.detect import EqmDetector

_TENSORS, _SETTINGS, _VERSION = "detector.safetensors", "detector.json", 1
_RESIDUALS = "residuals."
"""The tensors of the residuals have this prefix in the file."""


@dataclass(frozen=True)
class _Stored:
    """The content of detector.json."""

    score: str | tuple[str, ...]
    fpr: Annotated[float, Meta(gt=0, lt=1)]
    gammas: Gammas
    draws: Draws
    seed: AnySeed
    decay: tuple[str, dict[str, Any]]
    sampling: Sampling
    weights: str | None
    """Their fingerprint; None for a field without weights."""
    notes: tuple[str, ...] = ()


def save_detector(
    detector: EqmDetector, calibration: Calibration, folder: str | os.PathLike[str]
) -> None:
    """Returns nothing; does what `EqmDetector.save` says."""
    config, field = detector.score_config, detector.field
    settings = {
        "format": "eqm-detector",
        "version": _VERSION,
        "score": detector.score,
        "fpr": detector.fpr,
        "gammas": config.gammas,
        "draws": config.draws,
        "seed": config.seed,
        "decay": registry.settings_of("decay", config.objective.decay),
        "sampling": asdict(config.sampling),
        "weights": fingerprint_of(field),
        "notes": detector.notes,
    }
    tensors = {name: tensor.contiguous() for name, tensor in vars(calibration).items()}
    if detector.held_out is not None:
        tensors["held_out"] = detector.held_out
    if detector.usual is not None:
        tensors |= {f"{_RESIDUALS}{name}": t for name, t in detector.usual.tensors().items()}
    folder = Path(folder)
    check_folder(folder, "eqm-detector", within=("eqm", "eqm-run"), name="folder")
    make_folder(folder)
    if detector.encoder is not None and isinstance(field, nn.Module):
        metadata = dict(describe(field).metadata)
        data = {**(metadata.get("data") or {}), "encoder": about_encoder(detector.encoder)}
        write_pretrained(_in_float16(field), folder, metadata=metadata | {"data": data})
    with replacing(folder / _SETTINGS) as words, replacing(folder / _TENSORS) as path:
        words.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, path)


def load_detector(
    cls: type[EqmDetector],
    folder: str | os.PathLike[str],
    field: Field | None,
    encoder: Encoder | None,
    device: str | torch.device,
) -> EqmDetector:
    """Does what `EqmDetector.load` says."""
    where = folder_of(os.fspath(folder))
    if not (where / _SETTINGS).is_file():
        raise ValueError(
            f"{where} must hold a calibrated detector, {_SETTINGS}: calibrate one on normal "
            "images, with `eqm detect MODEL IMAGES --normal PICTURES --save` or "
            "EqmDetector(field).fit(images).save(folder)"
        )
    field = from_pretrained(where, device=device) if field is None else field
    path, advice = where / _SETTINGS, "calibrate it again"
    found = read_json(path, dict[str, Any], advice=advice)
    if found.pop("format", "") != "eqm-detector":
        raise ValueError(f"{path} is not a detector of eqm: {advice}")
    if (version := found.pop("version", 0)) != _VERSION:
        raise ValueError(f"{path} must have version {_VERSION}; got {shown(version)}: upgrade eqm")
    stored: _Stored = convert(found, _Stored, f"{path}: ", advice=advice)
    tensors = read_tensors(where / _TENSORS, advice=advice)
    if encoder is None:
        encoder = feature_maps_of(field, device)
    if encoder is not None and isinstance(field, nn.Module):
        field = _in_float32(field)
    try:
        name, settings = stored.decay
        config = ScoreConfig(
            EquilibriumMatching(
                registry.make("decay", name, {}, settings.items()),
                describe(field).noise_conditioning,
            ),
            stored.sampling,
            stored.gammas,
            stored.draws,
            stored.seed,
        )
        config.sampling.make_rule()  # raises now if the rule is not registered
        detector = cls(field, stored.score, stored.fpr, config, encoder=encoder)
        detector.notes, detector.held_out = stored.notes, tensors.pop("held_out", None)
        detector.usual = _residuals(tensors)
        detector.calibration = Calibration.load(tensors)
    except registry.UnknownNameError as error:
        raise ValueError(f"cannot load the detector in {where}: {error}") from error
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the detector in {where} is damaged ({reason}): {advice}") from error
    if stored.weights != fingerprint_of(field):
        raise ValueError(
            f"the detector in {where} was calibrated with other weights than these: calibrate it again"
        )
    return detector


def _in_float16(field: nn.Module) -> nn.Module:
    """The field with its weights in float16, if that changes none of them."""
    halved = deepcopy(field).half()
    before, after = field.state_dict(), halved.state_dict()
    same = all(torch.equal(before[name], after[name].to(before[name].dtype)) for name in before)
    return halved if same else field


def _in_float32(field: nn.Module) -> nn.Module:
    """The field, in float32 if it was stored in float16."""
    halved = all(weight.dtype == torch.float16 for weight in field.parameters())
    return field.float() if halved else field


def feature_maps_of(field: Field, device: str | torch.device = "cpu") -> Encoder | None:
    """The encoder of feature maps that the field was trained on; None for pixels and latents."""
    metadata: Mapping[str, Any] = describe(field).metadata
    encoder = (metadata.get("data") or {}).get("encoder")
    if not isinstance(encoder, Mapping) or "mean" not in encoder:
        return None
    return encoder_of(metadata, device=device)


def _residuals(tensors: dict[str, Tensor]) -> ResidualGaussian | None:
    """The statistics among the tensors, which are taken out."""
    names = [name for name in tensors if name.startswith(_RESIDUALS)]
    found = {name.removeprefix(_RESIDUALS): tensors.pop(name) for name in names}
    return ResidualGaussian.load(found) if found else None


def fingerprint_of(field: Field) -> str | None:
    """A hexadecimal digest of the weights of a field, None if it is not a module."""
    if not isinstance(field, nn.Module):
        return None
    sha = hashlib.sha256()
    for name, tensor in sorted(field.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
