"""Several processes that train one model: what `torchrun` starts, and plain code where it does not."""

from __future__ import annotations

import atexit
import gc
import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from eqm.devices import launched, pick_device
from eqm.devices import rank as rank
from eqm.devices import world_size as world_size
from eqm.energy import Energy
from eqm.train.blocks import blocks_of

T = TypeVar("T")


def is_main() -> bool:
    """Whether this is the process that reads and writes the run's folder."""
    return rank() == 0


def join(device: str) -> torch.device:
    """The device of this process, once it has met the others; without a launcher just the device.

    On CUDA every process of a machine takes its own device and speaks by nccl, else by gloo. Raises
    ValueError where a machine has fewer devices than processes.
    """
    place = pick_device(device)
    if not launched():
        return place
    if place.type == "cuda":
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise ValueError(
                f"a machine with {there} CUDA devices runs as many processes; got number "
                f"{local + 1}: start torchrun with --nproc-per-node {there}, or set device cpu"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        # Imported later (DDP does it), this module would keep the group alive in default arguments.
        import_module("torch.distributed.nn.functional")
        atexit.register(leave)
        dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    return place


def leave() -> None:
    """Returns nothing; ends the process group, if there is one. `join` has it called at exit, too.

    A thread of gloo that still lives when the interpreter ends can abort the process. The threads
    end with the group, and the group with the last object that uses it.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def on_main(function: Callable[[], T]) -> T:
    """What `function` returns on process 0, on every process.

    What it raises there is raised there; the others leave quietly with status 2, as process 0 has
    said why.
    """
    if world_size() == 1:
        return function()
    said: list[Any] = [None, False]
    failure = None
    if is_main():
        try:
            said = [function(), True]
        except Exception as error:
            failure = error
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    if failure is not None:
        raise failure
    if not said[1]:
        raise SystemExit(2)
    return said[0]


def all_agree(holds: bool, *, within: timedelta | None = None) -> bool:
    """Whether it holds on every process; it waits for them, not for a device.

    Raises TimeoutError where the others do not ask the same `within` that time.
    """
    if world_size() == 1:
        return holds
    word = torch.tensor(int(holds))
    work = dist.all_reduce(word, dist.ReduceOp.MIN, async_op=True)
    assert work is not None
    try:
        work.wait() if within is None else work.wait(within)
    except RuntimeError as error:
        if within is None:
            raise
        raise TimeoutError(f"the other processes did not answer within {within}") from error
    return bool(word)


class Flag:
    """Something that any process may raise and all must act upon at the same step.

    The answer to one call is fetched while the next step computes, so nobody waits for it.
    """

    def __init__(self) -> None:
        self._asked: tuple[dist.Work, Tensor] | None = None

    def raised(self, here: bool) -> bool:
        """Whether any process had raised it at its call before this one; alone, whether `here`."""
        if world_size() == 1:
            return here
        before = self.last()
        word = torch.tensor(int(here))
        work = dist.all_reduce(word, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._asked = (work, word)
        return before

    def last(self) -> bool:
        """Whether any process had raised it at its latest call."""
        if self._asked is None:
            return False
        work, word = self._asked
        work.wait()
        self._asked = None
        return bool(word)


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar tensor over the processes, on its device."""
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()


def shard(model: nn.Module, device: torch.device, *, trains: bool) -> nn.Module:
    """The same model with each weight cut over the processes (FSDP2), for weights that do not fit.

    A network is gathered block by block. An explicit energy is gathered whole for the length of a
    step, because the gradient inside it would let go of a block that the second derivative still
    needs: its optimizer and average are cut all the same. A model that only evaluates
    (`trains=False`) lets go of its weights after every evaluation, for they change in between.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # It warns of outputs that are views; nothing here writes into an output.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    mesh = init_device_mesh(device.type, (world_size(),))
    if not isinstance(model, Energy):
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=not trains)
    return model


def is_cut(model: nn.Module) -> bool:
    """Whether `shard` has cut the weights of the model."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; it shares the memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, whatever part of it each process holds; all must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distribute(value: Tensor | None, like: Tensor) -> Tensor:
    """What process 0 has in `value`, on the device of `like` and cut as it is; all must ask."""
    if world_size() == 1:
        assert value is not None
        return value.to(like.device)
    if is_main():
        assert value is not None
        full = value.to(like.device).contiguous()
    else:
        full = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(full, like.device_mesh, like.placements)
    dist.broadcast(full, src=0)
    return full
