"""How fast a run is, and how near to what its device can do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqm.models import cost
from eqm.train.config import TrainConfig
from eqm.train.distributed import world_size
from eqm.train.loop import Progress
from eqm.train.precision import training_dtype

FORWARD_PASSES = {"implicit": 3, "dot": 6, "norm": 6}
"""What training on one image costs in evaluations of the network: the backward pass counts twice. An
explicit energy is differentiated twice, and 6 is the least that takes."""


@dataclass(frozen=True)
class Work:
    """What a training image costs, and what the device can do."""

    flops: float
    """Model floating-point operations of training on one image; recomputation does not count."""
    matmul_flops_per_second: float
    """Of one device, measured: large matrix products in the precision of training."""


def work_of(config: TrainConfig, device: torch.device) -> Work:
    """The work of a run, its device measured now; takes a fraction of a second."""
    passes = FORWARD_PASSES[config.objective.energy]
    return Work(
        passes * cost(config.model).flops, matmul_rate(device, training_dtype(config, device))
    )


def matmul_rate(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.2) -> float:
    """Floating-point operations a second of the fastest of some square matrix products.

    They go on for `seconds`, at least two of them. On an accelerator the matrices are larger, as it
    takes more to keep it busy.
    """
    size = 512 if device.type == "cpu" else 8192 if device.type == "cuda" else 2048
    # random, as constant ones switch fewer transistors, and a device that is warm runs slower
    a = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    synchronize = _synchronizer(device)
    best, end = float("inf"), time.perf_counter() + seconds
    for _ in range(2):  # what is allocated and chosen at first does not count
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
    """What steps came to since the last look, with how long they took.

    Nothing waits for the device until the look.
    """

    def __init__(self, work: Work | None = None) -> None:
        self.work = work
        self.news = (
            {} if work is None else {"matmul_flops_per_second": work.matmul_flops_per_second}
        )
        self.restart()

    def restart(self) -> None:
        """Starts to count from now."""
        self.since = time.perf_counter()
        self.images, self.waited = 0, 0.0
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []

    @property
    def seconds(self) -> float:
        """Since the last look."""
        return time.perf_counter() - self.since

    def add(self, step: Progress) -> None:
        """Takes a step in."""
        self.last = step
        self.images += step.batch
        self.waited += step.waited
        self.losses.append(step.loss)
        self.norms.append(step.gradient_norm)

    def look(self) -> dict[str, float]:
        """The numbers since the last look, at least a step ago; waits for the device.

        Means are over the steps whose value is finite: a step that is skipped has none.
        """
        means = torch.stack([_mean(self.losses), _mean(self.norms), self.last.skipped.float()])
        loss, norm, skipped = means.tolist()
        seconds = self.seconds  # after the device has done what it was asked
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
            achieved = self.work.flops * rate / world_size()
            numbers["model_flops_utilisation"] = achieved / self.work.matmul_flops_per_second
        news, self.news = self.news, {}
        self.restart()
        return numbers | news


def _mean(values: list[Tensor]) -> Tensor:
    stacked = torch.stack(values).float()
    return stacked.where(stacked.isfinite(), torch.nan).nanmean()
