"""The encoder in the metadata of a model or of latents; another encoder is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eqm.encoders.autoencoder import open_encoder
from eqm.encoders.encoder import Encoder, Pixels


def about_encoder(encoder: Encoder) -> dict[str, Any]:
    """The metadata of `encoder`: name, fingerprint, scale and shift.

    >>> about_encoder(Pixels())["scale"]
    1.0
    """
    return {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "scale": encoder.scale,
        "shift": encoder.shift,
    }


def encoder_of(
    metadata: Mapping[str, Any],
    name: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
) -> Encoder:
    """The encoder that decodes the samples of a model with this `metadata`; `Pixels` for pixels.

    It is opened by the name that training used, or by `name`. A model without an encoder in its
    metadata takes any. Raises ValueError if the encoder is missing, or not the model's.
    """
    data = metadata.get("data")
    stored = data.get("encoder") if isinstance(data, Mapping) else None
    if stored is None:
        return Pixels() if name is None else open_encoder(name, device=device)
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
    return encoder
