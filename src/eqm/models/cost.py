"""What a network costs, counted without building it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from eqm.models.config import NetworkConfig
from eqm.models.pretrained import build


class Cost(NamedTuple):
    """Parameters of a network, and floating-point operations of one evaluation on one sample."""

    parameters: int
    flops: int
    """Matrix products, convolutions and attention; a multiply-add counts 2."""


def cost(config: NetworkConfig) -> Cost:
    """The size and work of the network of `config`; nothing is allocated or computed.

    >>> from eqm.models import preset
    >>> cost(preset("EqM-B/2", shape=(4, 32, 32), num_classes=1000)).parameters
    130512416
    """
    with torch.device("meta"):
        network = build(config).requires_grad_(False)
        sample = torch.empty(1, *config.shape)
        gamma = torch.empty(1) if config.noise_conditioning else None
        with FlopCounterMode(display=False) as counter:
            network(sample, None, gamma)
    parameters = sum(weight.numel() for weight in network.parameters())
    return Cost(parameters, counter.get_total_flops())
