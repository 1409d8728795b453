"""Features by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from eqm.features.classifier import Classifier
from eqm.features.features import Features, ModuleFeatures, from_module


def open_features(name: str, *, device: str | torch.device = "cpu") -> Features:
    """The features called `name`, on `device`: KIND or KIND:ARGUMENT.

    * `pixels`: the pixels themselves, flattened
    * `classifier:NAME`: 64 activations and the probabilities of a small classifier, one that comes
      with the package (digits, fashion-mnist) or the folder of a saved `Classifier`

    Raises ValueError where there is no such kind, or its weights are missing or damaged.

    >>> open_features("pixels", device="cpu").name
    'pixels'
    """
    kind, _, argument = name.partition(":")
    if kind not in _KINDS:
        raise ValueError(f"features must be one of {', '.join(_KINDS)}; got {name}")
    return _KINDS[kind](argument, torch.device(device))


def _pixels(argument: str, device: torch.device) -> ModuleFeatures:
    if argument:
        raise ValueError(f"pixels take no argument; got pixels:{argument}")
    return from_module(nn.Flatten(), name="pixels")


def _classifier(argument: str, device: torch.device) -> ModuleFeatures:
    classifier = Classifier.load(argument).to(device)
    return from_module(
        classifier,
        name=f"classifier:{argument}",
        read=classifier.activations,
        size=classifier.head.in_features,
    )


_KINDS: dict[str, Callable[[str, torch.device], Features]] = {
    "pixels": _pixels,
    "classifier": _classifier,
}
