"""What the networks here have in common."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from eqm.field import Field
from eqm.models.conditioning import LabelEmbedding, check_inputs
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


@torch.no_grad()
def load_matching(network: nn.Module, trained: nn.Module) -> list[str]:
    """The names of the tensors of `network` that stay fresh; all others are copied from `trained`.

    The two may differ in `shape` and `num_classes` alone. Fresh stay the embeddings and the position
    tables that have another size; the row of the null label is copied all the same.
    Raises ValueError for networks that differ in more, such as the width or the channels of a sample.
    """
    if type(network) is not type(trained):
        raise ValueError(
            f"expected a trained {type(network).__name__}; got a {type(trained).__name__}: "
            "train that kind of network, or start from fresh weights"
        )
    ours: Any = getattr(network, "config", None)
    theirs: Any = getattr(trained, "config", None)
    if isinstance(ours, NetworkConfig):
        wanted, got = ({**asdict(c), "shape": 0, "num_classes": 0} for c in (ours, theirs))
        if different := [name for name in wanted if wanted[name] != got[name]]:
            raise ValueError(
                f"expected a trained network with {_listed(wanted, different)}; "
                f"got {_listed(got, different)}: set these to the values of the trained network"
            )
    target, source = network.state_dict(), trained.state_dict()
    computed = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    moved = ours is not None and ours.shape != theirs.shape
    same = {name for name in target if name in source and target[name].shape == source[name].shape}
    tables = _tables(network) | _tables(trained)
    if layers := sorted((target.keys() | source.keys()) - same - tables):
        sizes = (tuple(t[layers[0]].shape) if layers[0] in t else None for t in (target, source))
        raise ValueError(
            f"{layers[0]} must have the same shape in both networks; got {{}} and {{}}: "
            "give the samples as many channels as the trained network has".format(*sizes)
        )
    taken = same - computed if moved else same
    for name in taken:
        target[name].copy_(source[name])
    for name, module in network.named_modules():
        table = f"{name}.embedding_table.weight"
        if isinstance(module, LabelEmbedding) and table in source:
            target[table][-1] = source[table][-1]
    return [name for name in target if name not in taken]


def _tables(network: nn.Module) -> set[str]:
    """The names of embeddings and of parameters that belong to no layer."""
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, module in network.named_modules()
        if module is network or isinstance(module, nn.Embedding | nn.ParameterList)
        for name, _ in module.named_parameters(recurse=False)
    }


def _listed(values: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in names)
