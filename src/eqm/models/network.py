"""What the networks here have in common."""

from __future__ import annotations

from typing import Any

from torch import nn


class Network(nn.Module):
    """A field that knows its own sizes, and what it was trained on.

    Called as `network(x, labels=None, gamma=None)`, with x (B, *config.shape); the gradient has the
    shape of x.
    """

    config: Any
    """Its sizes, a `NetworkConfig`."""
    metadata: dict[str, Any]
    """What was stored with its weights: data, training, and how to sample it; empty for a fresh
    network."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.metadata = {}
