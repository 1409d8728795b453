"""The parts of a network that training treats in their own way, as the network declares them."""

from __future__ import annotations

from torch import nn

from eqm.energy import Energy
from eqm.models.network import Network


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks that are sharded and compiled one by one; none if the network declares none."""
    net = model.net if isinstance(model, Energy) else model
    return net.repeated_blocks() if isinstance(net, Network) else []


def outer_layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers that Muon leaves to AdamW; none if the network declares none."""
    net = model.net if isinstance(model, Energy) else model
    return net.outer_layers() if isinstance(net, Network) else []
