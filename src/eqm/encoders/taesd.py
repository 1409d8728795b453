"""The TAESD family: tiny autoencoders for the latents of Stable Diffusion and FLUX (MIT, madebyollin/taesd)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from eqm.encoders.autoencoder import Autoencoder
from eqm.registry import register
from eqm.tensor_files import read_tensors

SIDES = 3
"""How often the side is halved: a latent has an eighth of the sides of its picture."""


@register("encoder", "taesd")
@register("encoder", "taesdxl")
@register("encoder", "taesd3")
@register("encoder", "taef1")
@register("encoder", "taef2")
def open_taesd(name: str, *, device: str | torch.device = "cpu") -> Autoencoder:
    """The autoencoder `name`, KIND:FOLDER, with weights of any precision; it computes in float32.

    The folder holds encoder.safetensors and decoder.safetensors, or KIND_encoder.safetensors and
    KIND_decoder.safetensors. Their tensors have the names of the published files, which are places in a
    sequence, such as `0.weight`. Width, latent channels and pooling are read from the tensors.

    Raises ValueError for a missing or damaged file, and for missing, unexpected and non-finite tensors
    and wrong shapes.
    """
    kind, _, where = name.partition(":")
    folder = Path(where)
    if not where or not folder.is_dir():
        raise ValueError(
            f"{kind} must be given as {kind}:FOLDER, with the folder of encoder.safetensors and "
            f"decoder.safetensors; got {name}"
        )
    files = {half: _file(folder, kind, half) for half in ("encoder", "decoder")}
    stored = {half: read_tensors(path) for half, path in files.items()}
    first, last = (stored["encoder"].get(key) for key in ("0.weight", "14.weight"))
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        raise ValueError(
            f"{files['encoder']} must hold the kernels 0.weight and 14.weight of a {kind}; it does not: "
            "download it again"
        )
    with torch.device("meta"):  # takes no memory, whatever the files say
        network = Taesd(
            latent_channels=len(last),
            width=len(first),
            pool=any(".pool." in key for key in chain(*stored.values())),
        )
    for half, tensors in stored.items():
        _load(getattr(network, half), tensors, files[half])
    for weight in network.parameters():
        if weight.ndim == 4:  # a third faster on CPUs
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return Autoencoder(network.to(device), name=name)


class Taesd(nn.Module):
    """Encoder and decoder of the family, with the interface of the autoencoders of diffusers.

    Pictures (B, 3, H, W) are in -1..1 here; the layers take 0..1. Latents (B, C, H/8, W/8) have about unit
    variance. With `pool`, the blocks of the lowest resolution also normalise over the whole picture.
    """

    def __init__(self, latent_channels: int = 4, width: int = 64, pool: bool = False) -> None:
        super().__init__()
        self.config = {
            "in_channels": 3,
            "latent_channels": latent_channels,
            "block_out_channels": (width,) * (SIDES + 1),
            "width": width,
            "pool": pool,
        }
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for k in range(SIDES):
            halve = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
            down += [halve, *(_Block(width, pool and k == SIDES - 1) for _ in range(3))]
            up += [_Block(width, pool and k == 0) for _ in range(3)]
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, width, 3, padding=1), _Block(width)),
            *down,
            nn.Conv2d(width, latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            *(_Clamp(), nn.Conv2d(latent_channels, width, 3, padding=1), nn.ReLU()),
            *up,
            *(_Block(width), nn.Conv2d(width, 3, 3, padding=1)),
        )

    def encode(self, pixels: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """The latents, in a tuple."""
        return (self.encoder(pixels / 2 + 0.5),)

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """The pictures, in a tuple; not clipped."""
        return (self.decoder(latents) * 2 - 1,)


class _Block(nn.Module):
    def __init__(self, width: int, pool: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        self.pool = _pool(width) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def _pool(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, 4 * width, 1, bias=False),
        nn.GroupNorm(4, 4 * width),
        nn.ReLU(),
        nn.Conv2d(4 * width, width, 1, bias=False),
    )


class _Clamp(nn.Module):
    """Keeps latents within -3..3, smoothly."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _file(folder: Path, kind: str, half: str) -> Path:
    names = f"{half}.safetensors", f"{kind}_{half}.safetensors"
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"{folder} must hold {names[0]} or {names[1]}; it does not: download both halves of the "
        "autoencoder as safetensors"
    )


def _load(layers: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    own = layers.state_dict()
    for name in sorted({*own, *tensors}):
        wanted, found = own.get(name), tensors.get(name)
        if wanted is None or found is None or wanted.shape != found.shape:
            raise ValueError(
                f"{path} must hold {name} of shape {_shape(wanted)}; got {_shape(found)}: give both halves "
                "of one autoencoder of the TAESD family"
            )
        if not found.is_floating_point() or not found.isfinite().all():
            raise ValueError(
                f"{path} must hold finite numbers; {name} has others: download it again"
            )
    layers.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else str(tuple(tensor.shape))
