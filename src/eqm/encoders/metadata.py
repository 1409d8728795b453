"""Weights remember the encoder of their latents; another one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eqm.encoders.autoencoder import open_encoder
from eqm.encoders.encoder import Encoder, Pixels


def about_encoder(encoder: Encoder) -> dict[str, Any]:
    """What latents and weights remember of `encoder`: name, fingerprint, scale and shift.

    >>> about_encoder(Pixels())["scale"]
    1.0
    """
    return {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "scale": encoder.scale,
        "shift": encoder.shift,
    }


def check_encoder(encoder: Encoder, remembered: Mapping[str, Any], owner: str) -> None:
    """Returns nothing; raises ValueError where `encoder` is not the one that `owner` remembers."""
    if encoder.fingerprint != remembered["fingerprint"]:
        raise ValueError(
            f"{owner} learned latents of the encoder {remembered['name']} "
            f"({remembered['fingerprint']}); {encoder.name} ({encoder.fingerprint}) is another: "
            "give the first"
        )


def encoder_of(
    metadata: Mapping[str, Any],
    name: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
) -> Encoder:
    """The encoder that decodes what a model with this `metadata` generates, `Pixels` for pixels.

    It is looked for where training found it, or at `name`. Raises ValueError where it is not there,
    or is not the one whose latents the model learned; a model that remembers none takes any.
    """
    data = metadata.get("data")
    remembered = data.get("encoder") if isinstance(data, Mapping) else None
    if remembered is None:
        return Pixels() if name is None else open_encoder(name, device=device)
    try:
        encoder = open_encoder(name or remembered["name"], device=device)
    except ValueError as error:
        if name is not None:
            raise
        raise ValueError(
            f"the model is of latents; where their encoder is now must be given as --vae: {error}"
        ) from error
    check_encoder(encoder, remembered, "the model")
    return encoder
