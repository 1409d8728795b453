"""Features: networks that turn images, or samples of any kind, into vectors that metrics compare."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eqm.checks import as_floats, check_callable, check_count, check_samples, kind_of
from eqm.devices import pick_device
from eqm.registry import import_part, lookup, names, register


class Activations(NamedTuple):
    """What a network returns for a batch of B images."""

    vector: Tensor
    """One feature vector per image, (B, D)."""
    spatial: Tensor | None = None
    """Activations that keep spatial positions, flattened, (B, S)."""
    probabilities: Tensor | None = None
    """Probabilities of the K classes that the network knows, (B, K)."""


def open_features(
    name: str, *, device: str | torch.device = "cpu", reference: Iterable[Tensor] | None = None
) -> Features:
    """The features called `name`, on `device`: KIND or KIND:ARGUMENT.

    * `inception:PATH`: the network of FID, from a public weight file; all three activations
    * `dinov2:FOLDER`, `clip:FOLDER`: vision transformers, from a folder as on the Hugging Face Hub
    * `lite0`, `lite0:SIDE`: EfficientNet-Lite0 at 224 or SIDE pixels, with probabilities
    * `classifier:NAME`: 64 activations and the probabilities of a small classifier: one that comes
      with the package (digits, mnist-5k, fashion-mnist) or the folder of a saved `Classifier`
    * `pca:N`: N principal components of `reference`, batches of images
    * `pixels`: the pixels themselves, flattened
    * `values`: the numbers of samples of any kind, flattened
    * `MODULE:FUNCTION`: a function of yours from samples (B, ...) to a tensor (B, ...), or to `Activations`. The
      module, which may be a file in the current folder, is imported. A class is made without arguments.

    `pca:N` and `values` take samples of any shape, the other built-in ones pictures.

    Own features can also be a function that is registered with `eqm.register("features", KIND)` and returns
    `Features`. It may take any of `argument` (a str), `device` (a torch.device) and `reference`.

    Raises ValueError for an unknown kind or argument, and for missing or damaged weights.

    >>> open_features("pixels", device="cpu").name
    'pixels'
    """
    if not isinstance(name, str):
        raise ValueError(f"features have a name, such as 'lite0'; got {kind_of(name)}")
    kind, _, argument = name.partition(":")
    if argument and kind not in names("features"):
        return _own(name, pick_device(str(device)))
    make = lookup("features", kind)
    given = {"argument": argument, "device": pick_device(str(device)), "reference": reference}
    taken = inspect.signature(make).parameters
    if argument and "argument" not in taken:
        raise ValueError(f"{kind} takes no argument; got {name}: use {kind}")
    found = make(**{key: value for key, value in given.items() if key in taken})
    if not isinstance(found, Features):
        raise ValueError(f"the features {kind} must be made as Features; got {kind_of(found)}")
    return found


@dataclass(frozen=True, eq=False)
class Features:
    """A function from images to `Activations`, with a name and a fingerprint; made by `from_module`."""

    module: nn.Module
    read: Callable[[Tensor], Tensor | Activations]
    name: str
    """The name that `open_features` takes, or the `name` given to `from_module`."""
    fingerprint: str
    """Hexadecimal digest of weights and settings; equal features have equal fingerprints."""
    size: int
    """D, the length of a feature vector; 0 if it depends on the image size."""
    resize: str
    """How images are resized before the network, in words."""
    batch_size: int
    """How many images the network sees at a time."""
    any_shape: bool = False
    """Whether samples may be of any shape, not only pictures."""

    def __call__(self, images: Tensor) -> Activations:
        """The activations of images (B, C, H, W), float32 in -1..1, without gradients; or of samples (B, ...) of
        another kind, where the features take them.

        They are on the module's device. Raises ValueError for images of the wrong range or shape, NaN and infinity.
        """
        if not self.any_shape and getattr(images, "ndim", 4) != 4:
            raise ValueError(
                f"the features {self.name} take pictures; got samples of shape {tuple(images.shape[1:])}: take "
                "values, pca:N, or a function of your own, MODULE:FUNCTION"
            )
        images = as_samples(images) if self.any_shape else as_images(images)
        device = next(chain(self.module.parameters(), self.module.buffers()), images).device
        # No TensorFloat-32: its rounding changes Frechet distances.
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts = [
                self._activations(part.to(device)) for part in images.split(int(self.batch_size))
            ]
        return Activations(
            torch.cat([part.vector for part in parts]),
            joined([part.spatial for part in parts]),
            joined([part.probabilities for part in parts]),
        )

    def _activations(self, images: Tensor) -> Activations:
        found = self.read(images)
        if not isinstance(found, Activations) and not (
            isinstance(found, Tensor) and found.ndim and len(found) == len(images)
        ):
            raise ValueError(
                f"the features {self.name} must return a tensor ({len(images)}, ...); got {kind_of(found)}"
            )
        return found if isinstance(found, Activations) else Activations(found.flatten(1))


def from_module(
    module: nn.Module,
    *,
    name: str,
    read: Callable[[Tensor], Tensor | Activations] | None = None,
    size: int = 0,
    resize: str = "none",
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    any_shape: bool = False,
) -> Features:
    """Any module as features, in evaluation mode.

    The module takes images (B, C, H, W), float32 in -1..1, and returns `Activations` or a tensor
    (B, ...), which is flattened. `read` is called instead of the module, if given. `resize` says in
    words how the module resizes images. `settings` is JSON data about the module that its weights do
    not show. Both are part of the fingerprint. The module sees `batch_size` images at a time. With `any_shape` it
    also takes samples that are no images, (B, ...) with any finite values.

    >>> from_module(nn.Flatten(), name="mine")(torch.zeros(2, 1, 4, 4)).vector.shape
    torch.Size([2, 16])
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be a torch.nn.Module; got {kind_of(module)}")
    if read is not None:
        check_callable(read=read)
    check_count(batch_size=batch_size)
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"settings must be a dict; got {kind_of(settings)}")
    about = [type(module).__name__, resize, dict(settings or {})]
    return Features(
        module.eval(),
        read or module,
        name,
        _fingerprint(module, about),
        size,
        resize,
        batch_size,
        any_shape,
    )


def as_images(images: Tensor) -> Tensor:
    """The images as a tensor, from a tensor or an array.

    Raises ValueError unless they are (B, C, H, W), floating point in -1..1.
    """
    if not isinstance(images, Tensor) and "float" in str(getattr(images, "dtype", "")):
        images = as_floats(images=images).float()
    check_samples("(B, C, H, W)", least=1, images=images)
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images must have shape (B, C, H, W) and be floating point; got shape "
            f"{tuple(images.shape)} of {images.dtype}: rescale them to -1..1"
        )
    # NaN fails this test too. The margin allows for rounding.
    if not bool((images.abs() <= 1.001).all()):
        raise ValueError(
            f"images must lie in -1..1; got {images.min().item():g} to {images.max().item():g}: "
            "rescale or clip them"
        )
    return images


def as_rgb(images: Tensor) -> Tensor:
    """The images with three channels; grey images are repeated.

    Raises ValueError unless there are one or three channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(
            f"images must be grey or RGB, with 1 or 3 channels; got {images.shape[1]}: choose other "
            "features, such as pixels"
        )
    return images.expand(-1, 3, -1, -1)


def as_samples(samples: Tensor) -> Tensor:
    """The samples (B, ...); images (B, C, H, W) as `as_images` has them.

    Raises ValueError unless the others are floating point and finite."""
    if getattr(samples, "ndim", 0) == 4:
        return as_images(samples)
    if not isinstance(samples, Tensor) and "float" in str(getattr(samples, "dtype", "")):
        samples = as_floats(samples=samples).float()
    check_samples("(B, ...)", samples=samples)
    if not (samples.is_floating_point() and samples.isfinite().all()):
        raise ValueError("samples must be finite floating-point numbers: remove NaN and infinity")
    return samples


def _own(name: str, device: torch.device) -> Features:
    """The features of a function of the user, MODULE:FUNCTION."""
    import_part("features", name)
    made = lookup("features", name)
    made = made() if isinstance(made, type) else made
    if isinstance(made, Features):
        return made
    if isinstance(made, nn.Module):
        return from_module(made.to(device), name=name, any_shape=True)
    return from_module(
        nn.Identity(), name=name, read=made, settings={"function": name}, any_shape=True
    )


@register("features", "values")
def open_values() -> Features:
    """The numbers of samples of any shape, flattened."""
    return from_module(nn.Flatten(), name="values", any_shape=True)


@register("features", "pixels")
def open_pixels() -> Features:
    """The pixels of the images, flattened."""
    return from_module(nn.Flatten(), name="pixels")


def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All parts as one tensor; None if any is None."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) == len(parts) else None


def _fingerprint(module: nn.Module, about: object) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
