"""What `serving.py` compares the engine with, and the requests of its mixed load.

Servers of diffusion models put only requests with equal settings into one batch, and a batch runs to its
end before the next one begins. `StaticBatches` does that with the functions of `eqm.tasks`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from random import Random
from typing import Any, Self

import torch
from torch import Tensor

import eqm
from eqm.corruption import corrupt
from eqm.models import Network
from eqm.tasks import Downsample, Inpaint, denoise, generate, restore

GUIDANCE = (1.0, 1.2, 1.5, 2.0)
STEPS = (8, 12, 20)
SAMPLES = (1, 1, 1, 2, 4)
"""The mixed load draws a guidance scale, a number of steps and a number of samples from these."""


@dataclass(frozen=True)
class Job:
    """One request of the mixed load."""

    at: float
    """Seconds after the start."""
    use: Callable[..., Any]
    inputs: Tensor | None
    """Pictures or measurements; None to sample from noise."""
    labels: list[int]
    """One a sample."""
    options: tuple[Any, ...]
    """Further arguments of the use by position."""
    settings: tuple[tuple[str, Hashable], ...]
    """Further arguments of the use by name."""

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the use after the model."""
        given = [] if self.inputs is None else [self.inputs]
        return [*given, *self.options], {"labels": self.labels, **dict(self.settings)}


class StaticBatches:
    """Runs requests in the order of their arrival, with those that wait and have equal settings in
    one batch of at most `slots` samples.

    The samples of a batch use the seed of its first request, which changes no number of evaluations.
    """

    def __init__(self, model: Network, *, slots: int) -> None:
        self.model, self.slots = model, slots
        self.passes = self.requests = 0
        self._waiting: deque[tuple[Job, Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            self._waiting.append((job, future))
            self._changed.notify()
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            jobs = [job for job, _ in batch]
            labels = [label for job in jobs for label in job.labels]
            given = [job.inputs for job in jobs if job.inputs is not None]
            first = jobs[0]
            solution = first.use(
                self.model,
                *([torch.cat(given)] if given else []),
                *first.options,
                labels=labels,
                **dict(first.settings),
            )
            self.passes += 1
            self.requests += len(jobs)
            ends = torch.tensor([len(job.labels) for job in jobs]).cumsum(0).tolist()
            for (job, future), end in zip(batch, ends, strict=True):
                future.set_result(solution.x[end - len(job.labels) : end])

    def _next(self) -> list[tuple[Job, Future[Any]]]:
        """The oldest request and those that may share its batch; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            batch: list[tuple[Job, Future[Any]]] = []
            size = 0
            for each in list(self._waiting):
                job = each[0]
                if batch and (
                    _kind(job) != _kind(batch[0][0]) or size + len(job.labels) > self.slots
                ):
                    continue
                batch.append(each)
                size += len(job.labels)
                self._waiting.remove(each)
            return batch


def _kind(job: Job) -> Hashable:
    """Requests of one kind may share a static batch; seeds do not matter."""
    return job.use, job.options, tuple(each for each in job.settings if each[0] != "seed")


def mixed(model: Network, pictures: Tensor, *, count: int, rate: float, seed: int) -> list[Job]:
    """`count` requests that arrive at random, `rate` a second: samples, denoising and restoration."""
    random, generator = Random(seed), torch.Generator().manual_seed(seed)
    base = eqm.Sampling.of(model.metadata)
    mask = torch.ones(pictures.shape[-2:])
    mask[7:21, 7:21] = 0  # one hole for all, so that static batches may form
    operators = (Inpaint(mask), Downsample(2))
    jobs, at = [], 0.0
    for k in range(count):
        at += random.expovariate(rate)
        steps, guidance = random.choice(STEPS), random.choice(GUIDANCE)
        sampling = base.but(step_size=base.path_length / steps, guidance=guidance)
        many, use = random.choice(SAMPLES), random.choice((generate, denoise, restore))
        labels = [random.randrange(10) for _ in range(many)]
        rows = torch.randint(len(pictures), (many,), generator=generator)
        inputs, options = pictures[rows], ()
        settings: dict[str, Hashable] = {"sampling": sampling}
        if use is generate:
            inputs, settings["seed"] = None, 1000 * k
        elif use is denoise:
            inputs = corrupt(
                inputs, torch.randn(inputs.shape, generator=generator), torch.full((many,), 0.5)
            )
        else:
            options = (random.choice(operators),)
            inputs, settings["seed"] = options[0](inputs), 1000 * k
            settings["steps"] = steps
        jobs.append(Job(at, use, inputs, labels, options, tuple(settings.items())))
    return jobs


def replay(submit: Callable[[Job], Future[Any]], jobs: list[Job]) -> list[float]:
    """The seconds from arrival to result of each request; each is submitted at its time.

    The clock is the CPU time of this process, so that other processes do not count; while nothing
    runs, it leaps to the next arrival.
    """
    took = [0.0] * len(jobs)
    futures: list[Future[Any]] = []
    noted = threading.Semaphore(0)
    leaps = -time.process_time()

    def note(k: int) -> None:
        took[k] = leaps + time.process_time() - jobs[k].at
        noted.release()

    for k, job in enumerate(jobs):
        while (early := job.at - leaps - time.process_time()) > 0:
            if all(future.done() for future in futures):
                leaps += early
            else:
                time.sleep(0.002)
        futures.append(submit(job))
        futures[-1].add_done_callback(lambda _, k=k: note(k))
    for future in futures:
        future.result()  # raises what went wrong
        noted.acquire()
    return took
