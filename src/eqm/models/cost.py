"""Parameters and FLOPs of a network, counted without memory for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from eqm.models.config import NetworkConfig
from eqm.models.network import build_empty


class Cost(NamedTuple):
    """Parameters of a network, and the FLOPs of one evaluation on one sample."""

    parameters: int
    flops: int
    """Of matrix products, convolutions and attention; a multiply-add counts as 2."""


def cost(config: NetworkConfig) -> Cost:
    """The cost of the network of `config`; it is counted on the meta device.

    >>> from eqm.models import preset
    >>> cost(preset("EqM-B/2", shape=(4, 32, 32), num_classes=1000)).parameters
    130512416
    """
    network = build_empty(config).requires_grad_(False)
    with next(network.parameters()).device, FlopCounterMode(display=False) as counter:
        gamma = (torch.empty(1),) if config.noise_conditioning else ()
        network(torch.empty(1, *config.shape), None, *gamma)
    parameters = sum(weight.numel() for weight in network.parameters())
    return Cost(parameters, counter.get_total_flops())
