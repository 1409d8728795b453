"""What a measure asks of features, and any module as such."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Activations(NamedTuple):
    """What a network makes of a batch of B images."""

    vector: Tensor
    """One feature vector an image, (B, D)."""
    spatial: Tensor | None = None
    """Activations that keep where something is, flattened, (B, S)."""
    probabilities: Tensor | None = None
    """Of the K classes that the network tells apart, (B, K)."""


class Features(Protocol):
    """From images to what measures compare."""

    @property
    def name(self) -> str:
        """What `open_features` finds it by, or what its maker called it."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of weights and settings: equal where the features are."""

    @property
    def size(self) -> int:
        """D, the entries of a feature vector; 0 where an image's own size decides it."""

    @property
    def resize(self) -> str:
        """What is done to a picture before the network sees it, in words."""

    def __call__(self, images: Tensor) -> Activations:
        """The activations of images (B, C, H, W), float32 in -1..1, without gradients.

        Raises ValueError for images of another range or shape than it takes.
        """


@dataclass(frozen=True, eq=False)
class ModuleFeatures:
    """A module as `Features`; `from_module` makes them."""

    module: nn.Module
    read: Callable[[Tensor], Tensor | Activations]
    name: str
    fingerprint: str
    size: int
    resize: str
    at_a_time: int

    def __call__(self, images: Tensor) -> Activations:
        """The activations of images (B, C, H, W), float32 in -1..1, without gradients.

        They are where the module is. Memory does not grow with B but for what is returned. Raises
        ValueError for images of another range or shape.
        """
        require_images(images)
        place = next(chain(self.module.parameters(), self.module.buffers()), images).device
        # Not TensorFloat-32: a Frechet distance shows its rounding.
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts = [self._activations(part.to(place)) for part in images.split(self.at_a_time)]
        return Activations(
            torch.cat([part.vector for part in parts]),
            _joined([part.spatial for part in parts]),
            _joined([part.probabilities for part in parts]),
        )

    def _activations(self, images: Tensor) -> Activations:
        found = self.read(images)
        return found if isinstance(found, Activations) else Activations(found.flatten(1))


def from_module(
    module: nn.Module,
    *,
    name: str,
    read: Callable[[Tensor], Tensor | Activations] | None = None,
    size: int = 0,
    resize: str = "none",
    settings: Mapping[str, Any] | None = None,
    at_a_time: int = 64,
) -> ModuleFeatures:
    """The features that `module` makes, in evaluation mode: any network can measure.

    It takes images (B, C, H, W), float32 in -1..1, and returns `Activations` or a tensor (B, ...),
    which is flattened; `read` is what to call in its place, as a method of it. `resize` says in
    words what it does to a picture first, and `settings`, anything JSON can hold, what else its
    weights do not show: both go into the fingerprint. It sees `at_a_time` images at once.

    >>> from_module(nn.Flatten(), name="mine")(torch.zeros(2, 1, 4, 4)).vector.shape
    torch.Size([2, 16])
    """
    about = [type(module).__name__, resize, dict(settings or {})]
    return ModuleFeatures(
        module.eval(), read or module, name, _fingerprint(module, about), size, resize, at_a_time
    )


def require_images(images: Tensor) -> None:
    """Returns nothing; raises ValueError unless images are (B, C, H, W), floating point in -1..1."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images must have shape (B, C, H, W) and be floating point; got shape "
            f"{tuple(images.shape)} of {images.dtype}: bring them to -1..1"
        )
    # Written so that NaN is refused as well; the margin allows for rounding.
    if not bool((images.abs() <= 1.001).all()):
        raise ValueError(
            f"images must lie in -1..1; got {images.min().item():g} to {images.max().item():g}: "
            "rescale or clip them"
        )


def as_rgb(images: Tensor) -> Tensor:
    """The images with three channels: grey ones are repeated.

    Raises ValueError for other numbers of channels than one and three.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(
            f"images must be grey or RGB, with 1 or 3 channels; got {images.shape[1]}: choose features "
            "that take them, such as pixels"
        )
    return images.expand(-1, 3, -1, -1)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _fingerprint(module: nn.Module, about: object) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
