"""Training steps recorded as a CUDA graph, which saves the launch time of their kernels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from eqm.randomness import SampleRandom

WARM_UP = 3
"""Calls before the recorded one, for compiling, autotuning and allocating."""
ROOM = 3
"""A graph keeps the memory of a step. The device must have this many times the peak memory so far."""

Update = Callable[[Tensor, Tensor | None, SampleRandom, float | Tensor], tuple[Tensor, ...]]
"""A function of a batch (data, labels, draws) and a learning rate that updates weights and returns scalars."""

_log = logging.getLogger(__name__)


class Recorded:
    """An update of weights that is recorded as a CUDA graph after a few calls, then replayed.

    A step of a small network has more than a thousand kernels, and Python takes ten times longer to
    launch them than a GPU takes to run them. A graph launches all at once. It is recorded again when
    the batch size, the seed or the optimizer's tensors change. A step that needs too much memory, or
    that cannot be recorded, runs without a graph.
    """

    def __init__(
        self, update: Update, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self._update, self._optimizer, self._device = update, optimizer, device
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._kind: object = None
        self._calls = 0
        self._off = False
        optimizer.register_load_state_dict_post_hook(self._forget)

    def __call__(
        self, data: Tensor, labels: Tensor | None, draws: SampleRandom, rate: float
    ) -> tuple[Tensor, ...]:
        kind = (data.shape, labels is None, draws.seed)
        if kind != self._kind:
            self._kind = kind
            self._forget()
        self._calls += 1
        inputs = [data, draws.positions] + ([] if labels is None else [labels])
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            if self._graph is None and self._calls > WARM_UP and not self._off and self._fits():
                self._graph = self._record(inputs, draws.seed)
            if self._graph is None:
                results = self._update(data, labels, draws, rate)
            else:
                for kept, new in zip(self._inputs, inputs, strict=True):
                    kept.copy_(new)
                self._rate.fill_(rate)
                self._graph.replay()
                results = tuple(result.clone() for result in self._results)
        here.wait_stream(self._stream)
        return results

    def _record(self, inputs: list[Tensor], seed: int) -> torch.cuda.CUDAGraph | None:
        self._inputs = [torch.empty_like(kept) for kept in inputs]
        self._rate = torch.zeros((), device=self._device)
        data, positions, *labels = self._inputs
        graph = torch.cuda.CUDAGraph()
        # Only this thread: others load data meanwhile, and pin its memory.
        recording = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
        try:
            with _recordable(self._optimizer), recording:
                self._results = self._update(
                    data, labels[0] if labels else None, SampleRandom(seed, positions), self._rate
                )
        except RuntimeError as error:
            self._off = True
            reason = str(error).partition("\n")[0]
            _log.warning(
                "a step cannot be recorded as a CUDA graph (%s): training goes on without", reason
            )
            return None
        return graph

    def _forget(self, *_: object) -> None:
        self._graph, self._calls = None, 0

    def _fits(self) -> bool:
        peak = torch.cuda.max_memory_allocated(self._device)
        return ROOM * peak < torch.cuda.get_device_properties(self._device).total_memory


@contextmanager
def _recordable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Marks torch's optimizers as capturable while recording; they warn if it is always set."""
    groups = optimizer.param_groups
    before = [dict(group) for group in groups]
    try:
        for group in groups:
            group["capturable"] = True
        yield
    finally:
        for group, settings in zip(groups, before, strict=True):
            group.clear()
            group.update(settings)
