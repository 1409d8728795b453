"""Features by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from eqm.features.classifier import Classifier
from eqm.features.features import Features, from_module
from eqm.features.hub import open_clip, open_dinov2
from eqm.features.inception import open_inception
from eqm.features.lite0 import open_lite0
from eqm.features.pca import fit_pca


def open_features(
    name: str, *, device: str | torch.device = "cpu", reference: Iterable[Tensor] | None = None
) -> Features:
    """The features called `name`, on `device`: KIND or KIND:ARGUMENT.

    * `inception:PATH`: the network of FID, from a public weight file; all three activations
    * `dinov2:FOLDER`, `clip:FOLDER`: vision transformers, from a folder as on the Hugging Face Hub
    * `lite0`, `lite0:SIDE`: EfficientNet-Lite0 at 224 or SIDE pixels, with probabilities
    * `classifier:NAME`: 64 activations and the probabilities of a small classifier, one that comes
      with the package (digits, mnist-5k, fashion-mnist) or the folder of a saved `Classifier`
    * `pca:N`: N principal components of `reference`, batches of images, which only they need
    * `pixels`: the pixels themselves, flattened

    Raises ValueError where there is no such kind, or its weights are missing or damaged.

    >>> open_features("pixels", device="cpu").name
    'pixels'
    """
    kind, _, argument = name.partition(":")
    if kind == "pca":
        if not argument.isdecimal() or reference is None:
            raise ValueError(
                f"components are pca:N, fitted on a reference; got {name}"
                f"{' without one' if reference is None else ''}: use fit_pca, or pass the reference"
            )
        return fit_pca(reference, int(argument), device=device)
    if kind not in _KINDS:
        raise ValueError(f"features must be one of {', '.join([*_KINDS, 'pca'])}; got {name!r}")
    return _KINDS[kind](argument, torch.device(device))


def _pixels(argument: str, device: torch.device) -> Features:
    if argument:
        raise ValueError(f"pixels take no argument; got pixels:{argument}")
    return from_module(nn.Flatten(), name="pixels")


def _classifier(argument: str, device: torch.device) -> Features:
    classifier = Classifier.load(argument).to(device)
    return from_module(
        classifier,
        name=f"classifier:{argument}",
        read=classifier.activations,
        size=classifier.head.in_features,
    )


_KINDS: dict[str, Callable[[str, torch.device], Features]] = {
    "inception": open_inception,
    "dinov2": open_dinov2,
    "clip": open_clip,
    "lite0": open_lite0,
    "classifier": _classifier,
    "pixels": _pixels,
}
