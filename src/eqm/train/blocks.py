"""The blocks of a network: what is gathered, compiled or computed again as one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, noop_context_fn

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


def recompute_activations(model: nn.Module) -> None:
    """Returns nothing; from now on blocks keep their input alone and run again in the backward pass.

    It costs a third more computation and saves most of the memory. Names of weights stay.
    """
    contexts = _plain_attention if isinstance(model, Energy) else noop_context_fn
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


class _PlainAttention:
    """The kernel that an energy's second derivative needs; entered as often as it is derived."""

    def __enter__(self) -> None:
        self._kernel = sdpa_kernel(SDPBackend.MATH)
        self._kernel.__enter__()

    def __exit__(self, *error: object) -> None:
        self._kernel.__exit__(None, None, None)


def _plain_attention() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of a block's first run and of its further ones."""
    return _PlainAttention(), _PlainAttention()
