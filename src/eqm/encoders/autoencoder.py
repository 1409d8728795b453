"""Opening encoders by name, and autoencoders with the interface of the diffusers library."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqm.encoders.encoder import AboutEncoder, Encoder, Pixels
from eqm.encoders.maps import FeatureMaps
from eqm.files import printable
from eqm.registry import lookup, names
from eqm.schema import convert, read_json, shown
from eqm.tensor_files import at_most_stored, read_tensors

KINDS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_PIXELS_AT_A_TIME = 1 << 20
"""Pixels of the images encoded or decoded at once; activations take about 100 times their memory."""


def open_encoder(name: str | Path, *, device: str | torch.device = "cpu") -> Encoder:
    """The encoder `name`, on `device`.

    * `pixels`: no encoder, for models of pixels
    * `taesd:FOLDER`, `taesdxl:`, `taesd3:`, `taef1:`, `taef2:`: an autoencoder of the TAESD family, as
      `eqm.encoders.open_taesd` reads it
    * another folder: an autoencoder of diffusers, config.json and diffusion_pytorch_model.safetensors
    * a name on the Hugging Face Hub, `owner/name`, of such a folder; `owner/name/vae` is the folder `vae` of
      a repository

    Encoders of your own are a function `open(name, *, device)` that is registered with
    `eqm.register("encoder", KIND)`, gets the whole name KIND:ARGUMENT and returns an `Encoder`.

    Raises ValueError if something is missing or damaged, or diffusers is needed and not installed.
    """
    if str(name) == "pixels":
        return Pixels()
    if (kind := str(name).partition(":")[0]) in names("encoder"):
        encoder: Encoder = lookup("encoder", kind)(str(name), device=device)
        return encoder
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            f"the encoder {name} needs diffusers: pip install 'eqm[latents]'"
        ) from error

    folder = Path(name) if Path(name).is_dir() else _download(str(name))
    kind = _kind(folder)
    try:
        stored = read_tensors(folder / _WEIGHTS)
        with _only_errors_logged(), at_most_stored(stored):
            network, report = getattr(diffusers, kind).from_pretrained(
                str(folder),
                low_cpu_mem_usage=False,  # True needs accelerate
                use_safetensors=True,  # pickles can run code
                output_loading_info=True,
            )
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} must hold a whole {kind}; {reason}") from error
    if missing := report["missing_keys"] + report["unexpected_keys"]:
        # diffusers itself would use random weights instead
        raise ValueError(
            f"{folder / _WEIGHTS} must hold the tensors of its {kind}; {len(missing)} are missing or "
            f"unexpected, such as {missing[0]}: download it again"
        )
    with _only_errors_logged():  # it warns about modules to keep in float32; all are
        network = network.to(device, torch.float32)
    return Autoencoder(network, name=str(name))


def encoder_of(
    metadata: Mapping[str, Any],
    name: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    outside: bool = False,
) -> Encoder:
    """The encoder `name` that decodes the samples of a model with this `metadata`; `Pixels` for pixels.

    The metadata may come from anybody. So the folder or name on the Hub that they give is opened only if
    `outside`, or if it is given as `name`. A model without an encoder in its metadata takes any. Raises
    ValueError if the encoder is not given, is missing, or is not the model's.
    """
    data = metadata.get("data")
    stored = data.get("encoder") if isinstance(data, Mapping) else None
    stored = convert(stored, AboutEncoder | None, "the model's ", name="metadata.data.encoder")
    if stored is None:
        return Pixels() if name is None else open_encoder(name, device=device)
    own = stored["name"].partition(":")[0] in ("pixels", "lite0", "resized")  # they open no folder
    if name is None and not outside and not own:
        raise ValueError(
            f"the model makes latents of the encoder {printable(stored['name'])}: pass --vae with its "
            "folder or its name on the Hub, if you trust it"
        )
    try:
        encoder = open_encoder(name or stored["name"], device=device)
    except ValueError as error:
        if name is not None:
            raise
        raise ValueError(
            f"the model generates latents and its encoder was not found: pass --vae; {error}"
        ) from error
    if encoder.fingerprint != stored["fingerprint"]:
        raise ValueError(
            f"the model needs the encoder {stored['name']} ({stored['fingerprint']}); "
            f"got {encoder.name} ({encoder.fingerprint}): pass the first"
        )
    if isinstance(encoder, FeatureMaps) and "mean" in stored and "std" in stored:
        return replace(encoder, mean=torch.tensor(stored["mean"]), std=torch.tensor(stored["std"]))
    return encoder


class Autoencoder:
    """An `AutoencoderKL`, `AutoencoderTiny` or `AutoencoderDC` of diffusers as an `Encoder`, or a `Taesd`.

    Its weights are frozen, but gradients flow through it. Only an `AutoencoderKL` has a posterior: the
    standard deviation of the others is 0.
    """

    def __init__(self, network: Any, *, name: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name = name
        config = dict(self.network.config)
        for key in ("latents_mean", "latents_std"):
            if config.get(key) is not None:
                raise ValueError(
                    f"the encoder {name} has {key}, one number per channel, which eqm does not support: "
                    "take an encoder that has scaling_factor and shift_factor only"
                )
        self.scale = float(config.get("scaling_factor") or 1.0)
        self.shift = float(config.get("shift_factor") or 0.0)
        widths = config.get("encoder_block_out_channels") or config["block_out_channels"]
        self._factor = 2 ** (len(widths) - 1)
        self._channels: tuple[int, int] = config["in_channels"], config["latent_channels"]
        self.fingerprint = _fingerprint(network, config)
        self.posterior = type(network).__name__ == "AutoencoderKL"

    def shape_of(self, image: Sequence[int]) -> tuple[int, ...]:
        channels, latent_channels = self._channels
        if len(image) != 3 or image[0] != channels or any(n % self._factor for n in image[1:]):
            raise ValueError(
                f"the encoder {self.name} takes images of {channels} channels whose sides are "
                f"multiples of {self._factor}; got {tuple(image)}"
            )
        return (latent_channels, *(side // self._factor for side in image[1:]))

    def image_shape_of(self, latent: Sequence[int]) -> tuple[int, ...]:
        channels, latent_channels = self._channels
        if len(latent) != 3 or latent[0] != latent_channels:
            raise ValueError(
                f"the encoder {self.name} decodes latents of {latent_channels} channels; "
                f"got {tuple(latent)}: take the encoder that made them"
            )
        return (channels, *(side * self._factor for side in latent[1:]))

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.shape_of(pixels.shape[1:])
        found = [self._posterior(part) for part in _parts(pixels, pixels.shape)]
        mean, std = (torch.cat(parts) for parts in zip(*found, strict=True))
        return (mean - self.shift) * self.scale, std * abs(self.scale)

    def _posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        (found,) = self.network.encode(self._here(pixels), return_dict=False)
        if isinstance(found, Tensor):
            return found, torch.zeros_like(found)
        return found.mean, found.std

    def decode(self, latents: Tensor) -> Tensor:
        """The images of `latents` (B, C, H, W), clipped to -1..1."""
        shape = self.image_shape_of(latents.shape[1:])
        z = self._here(latents) / self.scale + self.shift
        images = [self.network.decode(part, return_dict=False)[0] for part in _parts(z, shape)]
        return torch.cat(images).clamp(-1, 1)

    def _here(self, x: Tensor) -> Tensor:
        return x.to(next(self.network.parameters()))


def _parts(batch: Tensor, image: Sequence[int]) -> tuple[Tensor, ...]:
    """A batch in parts that fit into memory, for images of the shape (..., H, W)."""
    return batch.split(max(1, _PIXELS_AT_A_TIME // (image[-2] * image[-1])))


def _fingerprint(network: nn.Module, config: dict[str, Any]) -> str:
    # Default settings are left out, because a later diffusers may have more of them.
    parameters = inspect.signature(type(network).__init__).parameters
    settings = {
        key: value
        for key, value in json.loads(json.dumps(config)).items()
        if key in parameters and value != json.loads(json.dumps(parameters[key].default))
    }
    about = [type(network).__name__, settings]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _kind(folder: Path) -> str:
    path = folder / _CONFIG
    try:
        kind = read_json(path, dict[str, Any]).get("_class_name")
    except FileNotFoundError:
        inner = folder / "vae"
        hint = f"give {inner}" if (inner / _CONFIG).is_file() else "give the folder of an encoder"
        raise ValueError(f"{folder} must hold {_CONFIG}; it does not: {hint}") from None
    if kind not in KINDS:
        raise ValueError(
            f"{path} must be of a diffusers encoder, {', '.join(KINDS[:-1])} or {KINDS[-1]}; got {shown(kind)}"
        )
    return str(kind)


def _download(name: str) -> Path:
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w.-]+)*", name):
        raise ValueError(
            "expected the folder of an encoder or a Hub name such as stabilityai/sd-vae-ft-ema; "
            f"got {name}"
        )
    owner, repository, *inner = name.split("/")
    try:
        from huggingface_hub import snapshot_download

        files = ["/".join([*inner, file]) for file in (_CONFIG, _WEIGHTS)]
        return Path(snapshot_download(f"{owner}/{repository}", allow_patterns=files), *inner)
    except Exception as error:  # the Hub's client raises errors of several libraries
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"the encoder {name} is no local folder and could not be downloaded from the Hugging Face "
            f"Hub: {reason}"
        ) from error


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    log = logging.getLogger("diffusers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
