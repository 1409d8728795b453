"""What the networks here have in common."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from eqm.field import Field
from eqm.models.conditioning import check_inputs
from eqm.models.config import NetworkConfig
from eqm.registry import lookup, names


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

    activation_checkpointing: bool
    """Whether training keeps the inputs of blocks alone and computes the rest again on the way
    back: about a third more time for far less memory, and the same gradients. Off at first."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.activation_checkpointing = False
        self.config = config
        self.metadata = {}

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks that training shards (FSDP) and compiles one by one; by default none."""
        return []

    def outer_layers(self) -> list[nn.Module]:
        """The layers next to images, labels and noise levels, which Muon leaves to AdamW; by default
        none."""
        return []

    def compiled(self) -> Field:
        """The same field, compiled; it shares the weights."""
        return torch.compile(self)

    def through(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """What `block` makes of the inputs, keeping no more of it than `activation_checkpointing` says."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            # What an energy asks of attention must hold again when the block is run again.
            # A compiled one is not run again: what is to be computed twice is in its graph.
            compiling = torch.compiler.is_compiling()
            plain = not compiling and not torch.backends.cuda.flash_sdp_enabled()

            def run(*inputs: Tensor) -> Tensor:
                with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
                    return block(*inputs)

            return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)

    def check(self, x: Tensor, labels: Tensor | None, gamma: Tensor | None) -> None:
        """Raises ValueError unless the inputs are what the network expects, its dtype included.

        Under autocast, which converts, the dtype is free.
        """
        check_inputs(x, labels, gamma, self.config)
        dtype = next(self.parameters()).dtype
        if x.dtype == dtype or torch.compiler.is_compiling():
            return
        if not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"x must be of the network's dtype, {dtype}; got {x.dtype}: "
                f"pass x.to({dtype}), or convert the network"
            )


def build(config: NetworkConfig) -> Network:
    """The freshly initialised network of `config`, a field.

    Raises ValueError if no registered network has a config of this class.

    >>> from eqm.models import MLPConfig
    >>> sum(p.numel() for p in build(MLPConfig(shape=(2,), width=8, depth=1)).parameters())
    338
    """
    for name in names("network"):
        if config_type(name) is type(config):
            network: Network = lookup("network", name)(config)
            return network
    raise ValueError(
        f"config must be the config of a registered network ({', '.join(names('network'))}); "
        f"got {type(config).__name__}"
    )


def build_empty(config: NetworkConfig) -> Network:
    """The network of `config` on the meta device, without memory for its weights.

    A network that reads tensors while it is built is on the CPU instead. Raises as `build` does.
    """
    try:
        with torch.device("meta"):
            return build(config)
    except NotImplementedError:
        with torch.random.fork_rng(devices=[]):
            return build(config)


def config_type(name: str) -> type[NetworkConfig]:
    """The config class of the network registered under `name`, as its annotation `config` says.

    Raises ValueError for an unknown name, and for a network without this annotation.
    """
    network = lookup("network", name)
    for cls in network.__mro__:
        if "config" in inspect.get_annotations(cls):
            found = inspect.get_annotations(cls, eval_str=True)["config"]
            if isinstance(found, type) and issubclass(found, NetworkConfig):
                return found
            break
    raise ValueError(
        f"the network {name} must name its config class: write `config: MineConfig` in the class "
        f"{network.__name__}, with a dataclass MineConfig derived from eqm.models.NetworkConfig"
    )
