"""The blocks of a network: what is gathered or compiled as one."""

from __future__ import annotations

from torch import nn

from eqm.energy import Energy
from eqm.models.mlp import MLP
from eqm.models.transformer import Transformer
from eqm.models.unet import UNet


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network, or of the network of an energy; none of another model."""
    net = model.net if isinstance(model, Energy) else model
    match net:
        case Transformer() | MLP():
            return list(net.blocks)
        case UNet():
            return [block for level in (*net.encoder, *net.decoder) for block in level]
    return []
