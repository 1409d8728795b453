"""Several processes that train one model, started by `torchrun`; all functions also work in one."""

from __future__ import annotations

import atexit
import gc
import os
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from eqm.devices import launched, pick_device
from eqm.devices import rank as rank
from eqm.devices import world_size as world_size
from eqm.models import Network

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that a failed process waits for process 0 to say why."""
_joined = False


def is_main() -> bool:
    """Whether this is the process that reads and writes the run's folder."""
    return rank() == 0


def join(device: str) -> torch.device:
    """The device of this process, after the process group is set up.

    Without a launcher there is no group. On CUDA every process of a machine takes its own device and
    communicates by nccl, otherwise by gloo. Raises ValueError if a machine has fewer devices than
    processes.
    """
    place = pick_device(device)
    if not launched():
        return place
    if place.type == "cuda":
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise ValueError(
                f"{there} CUDA devices need at most {there} processes; got process number "
                f"{local + 1}: start torchrun with --nproc-per-node {there}, or set device cpu"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    global _joined
    _joined = True
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


def speaks() -> bool:
    """Whether this process says why it fails, so that a failure of all processes is said once.

    Under torchrun, the first process that asks; process 0 is let ahead, as the failure of another one may
    follow from its own. Under other launchers, process 0, and another one if process 0 goes on. A process
    that is ended while it waits does not.
    """
    if not launched() or world_size() == 1:
        return True
    try:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            time.sleep(PATIENCE if rank() else 0)
            return _is_first() if _is_served(within=1.0) else rank() == 0
        return rank() == 0 or _joined or _is_served(within=5 * PATIENCE)
    except KeyboardInterrupt:
        return False


def _is_served(within: float) -> bool:
    """Whether something listens where the processes meet: torchrun, or process 0 that has not failed."""
    address = os.environ["MASTER_ADDR"], int(os.environ.get("MASTER_PORT", "0"))
    until = time.monotonic() + within
    while address[1] and time.monotonic() < until:
        with suppress(OSError):
            socket.create_connection(address, timeout=1).close()
            return True
        time.sleep(0.1)
    return False


def _is_first() -> bool:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    key = f"eqm failed {os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}"
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=False, timeout=timedelta(seconds=10)
        )
        return store.add(key, 1) == 1
    except RuntimeError:  # torchrun has ended
        return rank() == 0


def on_main(function: Callable[[], T]) -> T:
    """The result of `function`, which runs on process 0 alone, on every process.

    If it raises, process 0 raises, and the others exit quietly with status 2.
    """
    if world_size() == 1:
        return function()
    result: list[Any] = [None, False]
    failure = None
    if is_main():
        try:
            result = [function(), True]
        except Exception as error:
            failure = error
    dist.broadcast_object_list(result, src=0, device=torch.device("cpu"))
    if failure is not None:
        raise failure
    if not result[1]:
        raise SystemExit(2)
    return result[0]


def gather(mine: list[T]) -> list[T]:
    """What all processes have, in the order of their ranks, on each of them. All must call this."""
    if world_size() == 1:
        return mine
    shares: list[list[T]] = [[]] * world_size()
    dist.all_gather_object(shares, mine)
    return [each for share in shares for each in share]


def refuse(error: Exception) -> NoReturn:
    """Raises `error` on process 0; the others exit quietly with status 2. All must call this."""

    def fail() -> NoReturn:
        raise error

    on_main(fail)
    raise AssertionError


def all_agree(holds: bool, *, within: timedelta | None = None) -> bool:
    """Whether `holds` is true on every process; all processes must call this.

    Raises TimeoutError if the others do not call it `within` that time.
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
    """A flag that any process may raise, and that all processes see at the same step.

    The processes exchange it while the next step computes, so no process waits.
    """

    def __init__(self) -> None:
        self._asked: tuple[dist.Work, Tensor] | None = None

    def raised(self, here: bool) -> bool:
        """Whether any process raised it in the previous call; with one process, `here`."""
        if world_size() == 1:
            return here
        before = self.last()
        word = torch.tensor(int(here))
        work = dist.all_reduce(word, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._asked = (work, word)
        return before

    def last(self) -> bool:
        """Whether any process raised it in the latest call."""
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
    """The same model, with each weight sharded over the processes (FSDP2).

    A network is gathered block by block, as it declares its blocks. An explicit energy is gathered
    whole during a step, because the second derivative needs all blocks; its optimizer and average
    are still sharded. A model that is only evaluated (`trains=False`) frees its gathered weights
    after every evaluation, because the weights change in between.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # FSDP2 warns of outputs that are views; nothing here writes into an output.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    mesh = init_device_mesh(device.type, (world_size(),))
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=not trains)
    return model


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks that a network declares; none for an energy and for other modules."""
    return model.repeated_blocks() if isinstance(model, Network) else []


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has sharded the weights of the model."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered from all processes, which must all call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distribute(value: Tensor | None, like: Tensor) -> Tensor:
    """The `value` of process 0, on the device of `like` and sharded like it; all must call this."""
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
