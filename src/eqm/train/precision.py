"""What training computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from eqm.train.config import TrainConfig


def training_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What matrix products are computed in."""
    low = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if low else torch.float32


def in_training_precision(
    config: TrainConfig, device: torch.device
) -> AbstractContextManager[object]:
    """Where the network computes in the precision that it trains in."""
    dtype = training_dtype(config, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
