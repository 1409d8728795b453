"""The base class of networks, and what is built from a config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from eqm.field import Field
from eqm.memory import free_memory
from eqm.models.conditioning import LabelEmbedding, check_inputs
from eqm.models.config import NetworkConfig
from eqm.registry import lookup, names
from eqm.tensor_files import at_most, at_most_stored

MOST_TENSORS = 20_000
"""A network has at most so many parameters and buffers."""


class Network(nn.Module):
    """A field with a config; the base class of the networks here and of your own.

    `network(x, labels=None, gamma=None)` returns the gradient at x (B, *config.shape), with the
    shape of x; under autocast its dtype is the one autocast chooses. `labels` (B,) may hold the null
    label `num_classes`; None is the null label for every sample. Only a noise-conditioned network
    takes `gamma` (B,). The networks here raise ValueError for inputs that do not fit the config.

    A network of your own is registered by `@eqm.register("network", "mine")` and names its config
    class by the annotation `config: MineConfig`, a `NetworkConfig`.
    """

    config: Any
    """Its sizes, a `NetworkConfig`."""
    metadata: dict[str, Any]
    """What is stored with the weights: data, training and sampling settings; empty at first."""
    activation_checkpointing: bool
    """Keep only the inputs of blocks in training and compute the rest again in the backward pass:
    much less memory, about a third more time, the same gradients. Off at first."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.activation_checkpointing = False
        self.config = config
        self.metadata = {}

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks that training shards (FSDP) and compiles one by one; none by default."""
        return []

    def outer_layers(self) -> list[nn.Module]:
        """The layers next to images, labels and noise levels, which Muon leaves to AdamW; none by
        default."""
        return []

    def compiled(self) -> Field:
        """The same field compiled, with the same weights."""
        return torch.compile(self)

    def through(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        """`block(*inputs)`, under activation checkpointing if that is on."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            # An energy needs plain attention, also when the block runs again in the backward pass.
            # A compiled block does not run again: its graph holds what is computed twice.
            compiling = torch.compiler.is_compiling()
            plain = not compiling and not torch.backends.cuda.flash_sdp_enabled()

            def run(*inputs: Tensor | None) -> Tensor:
                with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
                    return block(*inputs)

            return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)

    def check(self, x: Tensor, labels: Tensor | None, gamma: Tensor | None) -> None:
        """Returns nothing; raises ValueError for inputs that do not fit the config, and for a dtype
        other than the network's, unless autocast converts it."""
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
    """A new network with random weights for `config`.

    Raises ValueError if no registered network has this class of config, and if the memory is too small
    for its weights.

    >>> from eqm.models import MLPConfig
    >>> sum(p.numel() for p in build(MLPConfig(shape=(2,), width=8, depth=1)).parameters())
    338
    """
    build_empty(config)  # raises before memory is taken
    return _make(config)


def _make(config: NetworkConfig) -> Network:
    for name in names("network"):
        if _annotation(lookup("network", name)) is type(config):
            network: Network = lookup("network", name)(config)
            return network
    kind = type(config).__name__
    raise ValueError(
        f"config must be the config of a registered network ({', '.join(names('network'))}); "
        f"got {kind}: register the network whose class has the annotation `config: {kind}`"
    )


def build_empty(config: NetworkConfig, *, stored: Mapping[str, Tensor] | None = None) -> Network:
    """The network of `config` on the meta device, without memory for its weights.

    A network that reads values of tensors while it is built is on the CPU instead. Raises ValueError as
    soon as the network is larger than the `stored` tensors, or than the memory without them.
    """

    def limit() -> AbstractContextManager[None]:
        if stored is None:
            return at_most(MOST_TENSORS, free_memory() // 4)
        return at_most_stored(stored)

    try:
        with limit(), torch.device("meta"):
            return _make(config)
    except NotImplementedError:
        with limit(), torch.random.fork_rng(devices=[]):
            return _make(config)


def config_type(name: str) -> type[NetworkConfig]:
    """The class in the annotation `config` of the network that is registered under `name`.

    Raises ValueError for an unknown name, and if the annotation is missing.
    """
    network = lookup("network", name)
    if found := _annotation(network):
        return found
    raise ValueError(
        f"the network {name} must name its config class: write `config: MineConfig` in the class "
        f"{network.__name__}, with a dataclass MineConfig derived from eqm.models.NetworkConfig"
    )


def _annotation(network: type) -> type[NetworkConfig] | None:
    for cls in network.__mro__:
        if "config" in inspect.get_annotations(cls):
            try:
                found = inspect.get_annotations(cls, eval_str=True)["config"]
            except NameError:  # of a class inside a function
                return None
            return found if isinstance(found, type) and issubclass(found, NetworkConfig) else None
    return None


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


@torch.no_grad()
def load_matching(network: nn.Module, trained: nn.Module) -> list[str]:
    """The names of the tensors of `network` that stay fresh; all others are copied from `trained`.

    The configs may differ in `num_classes`, and in the height and width of `shape`. Then embeddings
    and position tables stay fresh, except for the row of the null label.
    Raises ValueError if the networks differ in more, and changes nothing.
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
    moved = ours is not None and ours.shape != theirs.shape
    same = {name for name in target if name in source and target[name].shape == source[name].shape}
    tables = _tables(network) | _tables(trained)
    computed = {name for name in tables & same if not network.get_parameter(name).requires_grad}
    if layers := sorted((target.keys() | source.keys()) - same - tables):
        name = layers[0]
        ours, theirs = (tuple(t[name].shape) if name in t else None for t in (target, source))
        raise ValueError(
            f"{name} must have the same shape in both networks; got {ours} and {theirs}: "
            "take samples with as many channels as the trained network has"
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
