"""Throughput, MFU and time of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from eqm.data import Source, batches
from eqm.devices import pick_device
from eqm.train.config import TrainConfig
from eqm.train.distributed import world_size
from eqm.train.loop import Progress, cpu_threads
from eqm.train.state import start
from eqm.train.step import make_step, training_dtype, training_flops

BUDGET = 3.0
"""Seconds of training steps in `estimate_time`, at most about so many."""


@dataclass(frozen=True)
class Work:
    """The two numbers that MFU (model FLOPs utilisation) compares with the throughput."""

    flops: float
    """Floating-point operations of training on one image, without activation checkpointing."""
    matmul_flops_per_second: float
    """Measured speed of large matrix products on one device, in the precision of training."""


def work_of(config: TrainConfig, device: torch.device) -> Work:
    """The work of a run. It measures the device, which takes a fraction of a second.

    Raises ValueError for a network that is not registered.
    """
    return Work(training_flops(config), matmul_rate(device, training_dtype(config, device)))


def estimate_time(config: TrainConfig, source: Source) -> float:
    """Seconds that the whole run takes on this device in one process, from a few measured steps.

    It trains a copy without compiling, previews and checkpoints, on batches that grow up to
    `batch_size` within a few seconds. Nothing is written.
    """
    with cpu_threads(config.threads):
        return _seconds_per_image(config, source) * config.images


def _seconds_per_image(config: TrainConfig, source: Source) -> float:
    device = pick_device(config.device)
    state = start(replace(config, parallel="ddp"), device)
    size, since = 1, time.perf_counter()
    while True:
        few = replace(config, batch_size=size, compile="off", parallel="ddp")
        step, synchronize = make_step(few, state, device), _synchronizer(device)
        data = batches(source, seed=config.seed, position=0, batch_size=size, device=device)
        for _ in range(2):  # the first step allocates
            batch = next(data)
            began = time.perf_counter()
            step(batch.data, batch.labels if config.model.num_classes else None, batch.random)
            synchronize()
            seconds = time.perf_counter() - began + batch.waited
        left = BUDGET - (time.perf_counter() - since)
        if size == config.batch_size or 8 * seconds > left:
            return seconds / size
        size = min(4 * size, config.batch_size)


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(50), duration(1000), duration(20_000)
    ('50 seconds', '17 minutes', '5.6 hours')
    """
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:,.1f} hours"


def matmul_rate(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.2) -> float:
    """Floating-point operations per second of the fastest of some square matrix products.

    They run for about `seconds`. An accelerator gets larger matrices, which keep it busy.
    """
    size = 512 if device.type == "cpu" else 8192 if device.type == "cuda" else 2048
    # Random numbers, because constant ones take less power, and so run faster.
    a = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    synchronize = _synchronizer(device)
    best, end = float("inf"), time.perf_counter() + seconds
    for _ in range(2):  # the first ones allocate and choose kernels
        torch.mm(a, a, out=out)
    synchronize()
    while best == float("inf") or time.perf_counter() < end:
        since = time.perf_counter()
        torch.mm(a, a, out=out)
        synchronize()
        best = min(best, time.perf_counter() - since)
    return 2 * size**3 / best


def _synchronizer(device: torch.device) -> Callable[[], None]:
    if device.type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(device)


class Throughput:
    """The speed of the steps since the last measurement, and their means since the last regular line.

    Only `measure` waits for the device.
    """

    def __init__(self, work: Work | None = None) -> None:
        self.work = work
        self.restart()

    def restart(self) -> None:
        """Starts to count from now."""
        self.since = time.perf_counter()
        self.images, self.waited = 0, 0.0

    def add(self, step: Progress) -> None:
        """Adds a step."""
        self.last = step
        self.images += step.batch
        self.waited += step.waited

    def measure(self) -> dict[str, float]:
        """The numbers of the steps since the last call, of which there must be one or more.

        Throughput, waiting and MFU depend on the machine; the others on the run alone.
        """
        loss, norm, skipped = torch.cat([self.last.means, self.last.skipped[None]]).tolist()
        seconds = time.perf_counter() - self.since  # after the device has done what it was asked
        rate = self.images / seconds
        numbers = {
            "loss": loss,
            "images_per_second": rate,
            "gradient_norm": norm,
            "learning_rate": self.last.learning_rate,
            "skipped_steps": skipped,
            "data_wait_share": min(self.waited / seconds, 1.0),
        }
        if self.work is not None:
            achieved, rated = (
                self.work.flops * rate / world_size(),
                self.work.matmul_flops_per_second,
            )
            numbers |= {"mfu": achieved / rated, "matmul_flops_per_second": rated}
        self.restart()
        return numbers
