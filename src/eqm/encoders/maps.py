"""Feature maps of frozen networks as encoders: a field on them sees what the network sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from eqm.checks import check_count, kind_of
from eqm.features.features import as_rgb
from eqm.features.lite0 import Lite0, load_lite0
from eqm.registry import register

SIDE = 224
"""Pictures are resized to SIDE x SIDE unless another side is asked for."""
LITE0_BLOCKS = (4, 10)
"""The blocks of Lite0 whose outputs are taken: strides 8 and 16, 40 and 112 channels."""
LEAST_STD = 1e-4
"""Channels that vary less count as constant."""
BATCH = 16
"""Pictures that the network sees at a time."""

Read = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""From pictures (B, 3, S, S) in -1..1 to maps (B, K, h, w), or to several of them."""


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """An encoder of pictures (B, 1 or 3, H, W) in -1..1 to whitened maps (B, K, h, w).

    Pictures are seen whole: they are resized to `side` x `side`, and grey ones are repeated to three
    channels. Each map of the network is brought to the grid of the middle one. Whitened: each channel has
    mean 0 and standard deviation 1 on the pictures given to `whitened`. It cannot decode.
    """

    read: Read
    """The frozen network."""
    side: int
    name: str
    fingerprint: str
    """A hexadecimal digest of the weights, the layers and the side."""
    mean: Tensor | None = None
    """The mean of each channel, (K,); None before `whitened`."""
    std: Tensor | None = None
    """The standard deviation of each channel, (K,)."""
    scale: float = 1.0
    shift: float = 0.0
    posterior: bool = False
    repeated: bool = True
    """Whether grey pictures are repeated to three channels."""

    @classmethod
    def of(
        cls,
        module: nn.Module | Read,
        *,
        layers: Sequence[str] = (),
        side: int = SIDE,
        name: str = "",
    ) -> Self:
        """The maps of a network or another callable; `layers` are the names of modules inside of it.

        It gets pictures (B, 3, side, side) in -1..1. Without `layers` it returns maps (B, K, h, w), or several
        of them in a tuple, list or dict. Raises ValueError for what cannot be called and unknown layers.
        """
        check_count(side=side)
        if not callable(module):
            raise ValueError(
                f"features must be a name, such as lite0, or a torch.nn.Module; got {kind_of(module)}"
            )
        if layers and not isinstance(module, nn.Module):
            raise ValueError(f"layers need a torch.nn.Module; got {kind_of(module)}")
        if isinstance(module, nn.Module):
            module = module.eval().requires_grad_(False)
        name = name or getattr(module, "__name__", type(module).__name__)
        about = [name, list(layers), side]
        read = _Layers(module, tuple(layers)) if isinstance(module, nn.Module) else module
        return cls(read, side, name, _fingerprint(module, about))

    def raw(self, pictures: Tensor) -> Tensor:
        """The maps before whitening, (B, K, h, w) in float32.

        Raises ValueError for other than 1 or 3 channels, and a network that returns no maps."""
        return torch.cat([self.raw_of_all(part) for part in pictures.split(BATCH)])

    @torch.no_grad()
    def raw_of_all(self, pictures: Tensor) -> Tensor:
        """The same, of all pictures at once."""
        pictures = as_rgb(pictures) if self.repeated else pictures
        found = self.read(resized(pictures, self.side))
        maps = list(found.values()) if isinstance(found, Mapping) else found
        maps = [maps] if isinstance(maps, Tensor) else list(maps)
        if not maps or not all(isinstance(m, Tensor) and m.ndim == 4 for m in maps):
            got = ", ".join(kind_of(each) for each in maps) or "nothing"
            raise ValueError(
                f"the features {self.name} must return maps (B, K, h, w); got {got}: name layers "
                "that have them"
            )
        grid = sorted({tuple(each.shape[2:]) for each in maps})
        return torch.cat([brought_to(each.float(), grid[0]) for each in maps], 1)

    def whitened(self, batches: Iterable[Tensor]) -> Self:
        """The same encoder, with mean and standard deviation of raw maps (B, K, h, w)."""
        count, total, squares = 0, torch.zeros(0), torch.zeros(0)
        for maps in batches:
            rows = maps.double().transpose(0, 1).flatten(1)  # (K, B h w)
            if not count:
                total, squares = rows.new_zeros(len(rows)), rows.new_zeros(len(rows))
            count += rows.shape[1]
            total += rows.sum(1)
            squares += rows.square().sum(1)
        mean = total / max(count, 1)
        std = (squares / max(count, 1) - mean.square()).clamp(min=LEAST_STD**2).sqrt()
        return replace(self, mean=mean.float().cpu(), std=std.float().cpu())

    def white(self, maps: Tensor) -> Tensor:
        """Raw maps, whitened. Raises ValueError before `whitened`."""
        if self.mean is None or self.std is None:
            raise ValueError(
                f"the maps of {self.name} are not whitened: train on them with --data.features {self.name}"
            )
        mean, std = (part.to(maps).view(-1, 1, 1) for part in (self.mean, self.std))
        return (maps - mean) / std

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The whitened maps, and zeros. Raises ValueError before `whitened`."""
        maps = self.white(self.raw(pixels))
        return maps, torch.zeros_like(maps)

    def shape_of(self, image: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.encode(torch.zeros(1, *image))[0].shape[1:])

    def image_shape_of(self, latent: Sequence[int]) -> tuple[int, ...]:
        raise ValueError(self._no_way_back())

    def decode(self, latents: Tensor) -> Tensor:
        raise ValueError(self._no_way_back())

    def _no_way_back(self) -> str:
        return (
            f"the features {self.name} cannot be turned back into pictures: such a model detects anomalies, "
            "and does not make pictures"
        )


def open_maps(features: Any, *, side: int | None = None, device: Any = "cpu") -> FeatureMaps:
    """The feature maps `features`: lite0, lite0:SIDE, dinov2:FOLDER, a `FeatureMaps`, or a module.

    Raises ValueError for unknown names, weights that are not installed, and what is no network."""
    if isinstance(features, FeatureMaps):
        return features
    if not isinstance(features, str):
        return FeatureMaps.of(features, side=side or SIDE)
    kind, _, argument = features.partition(":")
    if kind == "lite0":
        if side and not argument:
            features = f"lite0:{side}"
        return open_lite0_maps(features, device=device)
    if kind == "dinov2":
        return open_dinov2_maps(features, device=device)
    if kind == "resized":
        return open_resized(features)
    raise ValueError(
        f"features must be pixels, lite0, lite0:SIDE, dinov2:FOLDER or a torch.nn.Module; got {features!r}"
    )


@register("encoder", "lite0")
def open_lite0_maps(name: str, *, device: str | torch.device = "cpu") -> FeatureMaps:
    """The maps of EfficientNet-Lite0 of strides 8 and 16, 152 channels; the name is lite0 or lite0:SIDE.

    Raises ValueError where the weights are not installed."""
    argument = name.partition(":")[2]
    if argument and not (argument.isdecimal() and 64 <= int(argument) <= 1024):
        raise ValueError(f"lite0:SIDE takes a side of 64 to 1024 pixels; got {name}")
    side = int(argument or SIDE)
    network = load_lite0(size=side).to(device).requires_grad_(False)
    fingerprint = _fingerprint(network, ["lite0", LITE0_BLOCKS, side])
    from eqm.features.convolution import fold

    fold(network)
    return FeatureMaps(_Lite0Maps(network), side, f"lite0:{side}", fingerprint)


@register("encoder", "dinov2")
def open_dinov2_maps(name: str, *, device: str | torch.device = "cpu") -> FeatureMaps:
    """The patch tokens of the DINOv2 in a folder, on their grid; the name is dinov2:FOLDER."""
    from eqm.features.hub import open_dinov2

    found = open_dinov2(name.partition(":")[2], torch.device(device))
    prepared: Any = found.module
    side = int(prepared.side[0])

    def read(pictures: Tensor) -> Tensor:
        pixels = ((pictures + 1) / 2 - prepared.mean) / prepared.std
        tokens = prepared.network(pixel_values=pixels).last_hidden_state  # (B, 1 + R + P, K)
        patch = int(prepared.network.config.patch_size)
        grid = pictures.shape[2] // patch, pictures.shape[3] // patch
        return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)

    return FeatureMaps(read, side, name, found.fingerprint)


@register("encoder", "resized")
def open_resized(name: str, *, device: str | torch.device = "cpu") -> FeatureMaps:
    """The pixels themselves, resized; the name is resized:SIDE."""
    side = name.partition(":")[2]
    if not side.isdecimal() or not 1 <= int(side) <= 1024:
        raise ValueError(f"resized pixels are resized:SIDE, with a side of 1 to 1024; got {name}")
    return FeatureMaps(_same, int(side), name, _fingerprint(None, [name]), repeated=False)


def _same(pictures: Tensor) -> Tensor:
    return pictures


class _Lite0Maps:
    def __init__(self, network: Lite0) -> None:
        self.network = network

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        x, found = self.network.stem(self.network.prepare(pictures)), []
        for index, block in enumerate(list(self.network.blocks)[: max(LITE0_BLOCKS) + 1]):
            x = block(x)
            if index in LITE0_BLOCKS:
                found.append(x)
        return found


class _Layers:
    """The outputs of some modules inside of a network; of the network itself, if none are named."""

    def __init__(self, module: nn.Module, layers: tuple[str, ...]) -> None:
        known = dict(module.named_modules())
        for layer in layers:
            if layer not in known:
                named = ", ".join(name for name in known if name and "." not in name)
                raise ValueError(
                    f"layers must be modules of the network ({named}, ...); got {layer!r}"
                )
        self.module, self.layers = module, layers

    def __call__(self, pictures: Tensor) -> Any:
        if not self.layers:
            return self.module(pictures)
        found: dict[str, Tensor] = {}
        hooks = [
            self.module.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, output, layer=layer: found.__setitem__(layer, output)
            )
            for layer in self.layers
        ]
        try:
            self.module(pictures)
        finally:
            for hook in hooks:
                hook.remove()
        return [found[layer] for layer in self.layers]


def resized(pictures: Tensor, side: int) -> Tensor:
    """Pictures (B, C, H, W) as (B, C, side, side), whole, antialiased."""
    if tuple(pictures.shape[2:]) == (side, side):
        return pictures
    return interpolate(pictures, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def brought_to(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Maps (B, K, h, w) on another grid: means of cells on a coarser one, bilinear on a finer one."""
    if tuple(maps.shape[2:]) == tuple(grid):
        return maps
    if maps.shape[2] >= grid[0] and maps.shape[3] >= grid[1]:
        return adaptive_avg_pool2d(maps, (grid[0], grid[1]))
    return interpolate(maps, tuple(grid), mode="bilinear", align_corners=False)


def _fingerprint(module: Any, about: object) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    if isinstance(module, nn.Module):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
