"""One step of training: the gradient of a global batch, then the weights and their average."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eqm.energy import Energy
from eqm.field import Field
from eqm.objective import EquilibriumMatching
from eqm.randomness import SampleRandom
from eqm.train import distributed
from eqm.train.blocks import blocks_of
from eqm.train.config import TrainConfig
from eqm.train.ema import update_average
from eqm.train.graphs import Recorded
from eqm.train.precision import in_training_precision
from eqm.train.schedule import learning_rate_at
from eqm.train.state import TrainingState

TRIALS = 2
"""Steps that several processes try before they take them together: the first, and the next one,
when the optimizer has its memory."""

PATIENCE = timedelta(minutes=1)
"""How long a process that ran out of memory waits to hear that the others did. With FSDP a process
that did not is held up amid an exchange, which cannot be called off: leaving ends that."""

_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What one step came to; reading a tensor waits for the device."""

    loss: Tensor
    """Mean over the global batch, a scalar."""
    gradient_norm: Tensor
    """Of the gradient of all weights before clipping, a scalar."""
    learning_rate: float


def make_step(
    config: TrainConfig, state: TrainingState, device: torch.device
) -> Callable[[Tensor, Tensor | None, SampleRandom], Step]:
    """The function that takes one step on this process's share of a batch (data, labels, draws).

    The share is computed in micro-batches, and their size halved where memory runs out: the step
    then starts again with the same draws. A step whose loss or gradient is not finite changes no
    weight and is counted in the state. Nothing in it waits for the device, save with an optimizer
    that cannot be told on the device to leave a step out.
    """
    losses = _wrapped(_Losses(config, state.model, device), config, state, device)
    optimizer, settings = state.optimizer, config.optimizer
    weights = [weight for weight in state.model.parameters() if weight.requires_grad]
    micro, trials = config.micro_batch, TRIALS if distributed.world_size() > 1 else 0

    def gradient(
        data: Tensor, labels: Tensor | None, draws: SampleRandom, together: bool
    ) -> Tensor:
        """The mean loss of the share; its gradient is left in the weights."""
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for rows in slices(len(data), micro):
            last = rows.stop == len(data)
            apart = isinstance(losses, DistributedDataParallel) and not (last and together)
            with losses.no_sync() if apart else nullcontext():  # type: ignore[operator]
                chosen = None if labels is None else labels[rows]
                loss = losses(data[rows], chosen, draws[rows]).sum() / len(data)
                loss.backward()
            total += loss.detach()
        return total

    def fits(
        data: Tensor, labels: Tensor | None, draws: SampleRandom, together: bool
    ) -> Tensor | None:
        """The mean loss as `gradient` gives it, None when there was too little memory."""
        try:
            return gradient(data, labels, draws, together)
        except torch.OutOfMemoryError:
            return None  # what the failed call held is free only after this block

    def shrink(share: int) -> None:
        nonlocal micro, trials
        optimizer.zero_grad(set_to_none=True)
        tried = min(micro or share, share)
        if tried == 1:
            raise ValueError(
                f"{device} has too little memory for one image at a time: set activation_checkpointing, "
                "train a smaller network, or cut it over processes with torchrun and parallel fsdp"
            )
        micro = -(-tried // 2)
        trials = TRIALS if distributed.world_size() > 1 else 0
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if distributed.is_main():
            _log.warning("memory ran out at %d images at once: going on with %d", tried, micro)

    def out_of_memory(data: Tensor) -> ValueError:
        return ValueError(
            "memory ran out on one process alone: run the same command with "
            f"micro_batch {max((micro or len(data)) // 2, 1)} to go on from the checkpoint"
        )

    def backward(data: Tensor, labels: Tensor | None, draws: SampleRandom) -> Tensor:
        nonlocal trials
        while True:
            if trials:
                # A process that fails amid the others' exchange could not be waited for.
                tried = fits(data, labels, draws, together=False)
                alone = tried is None and config.parallel == "fsdp"
                try:
                    agreed = distributed.all_agree(
                        tried is not None, within=PATIENCE if alone else None
                    )
                except TimeoutError as error:
                    raise out_of_memory(data) from error
                if not agreed:
                    shrink(len(data))
                    continue
                trials -= 1
            loss = fits(data, labels, draws, together=True)
            if loss is not None:
                return loss
            if distributed.world_size() > 1:
                raise out_of_memory(data)
            shrink(len(data))

    def update(
        data: Tensor, labels: Tensor | None, draws: SampleRandom, rate: float | Tensor
    ) -> tuple[Tensor, ...]:
        """Loss, norm of the gradient, and 1 where the weights were left as they were, else 0."""
        loss = distributed.mean(backward(data, labels, draws))
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = distributed.whole(nn.utils.get_total_norm(gradients))
        if settings.clip:
            factor = (settings.clip / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([distributed.local(part) for part in gradients], factor)
        for group in optimizer.param_groups:
            group["lr"] = rate
        bad = (~(loss.isfinite() & norm.isfinite())).float()
        step_unless(bad, optimizer)
        return loss, norm, bad

    recorded = config.compile and device.type == "cuda" and distributed.world_size() == 1
    take = Recorded(update, optimizer, device) if recorded else update

    def step(data: Tensor, labels: Tensor | None, draws: SampleRandom) -> Step:
        batch = len(data) * distributed.world_size()
        images = state.images + batch
        rate = learning_rate_at(settings, images=images, total=config.images)
        loss, norm, bad = take(data, labels, draws, rate)
        state.images = images
        state.skipped += bad
        state.streak.add_(1).mul_(bad)
        update_average(
            state.average,
            state.model,
            images=state.images,
            batch=batch,
            halflife=settings.ema_halflife,
            ramp=settings.ema_ramp,
        )
        state.averages.update(state.model, images=state.images, batch=batch)
        return Step(loss, norm, rate)

    return step


def step_unless(bad: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Returns nothing; steps the optimizer unless the scalar `bad` is 1.

    A fused optimizer is told on the device, as `torch.amp.GradScaler` does it; another has to be
    waited for.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, bad  # type: ignore[attr-defined]
        optimizer.step()
    elif not bool(bad):
        optimizer.step()


def slices(length: int, size: int) -> Iterator[slice]:
    """The parts of 0..length of at most `size`; one part when `size` is 0.

    >>> list(slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = size or length
    for first in range(0, length, size):
        yield slice(first, min(first + size, length))


class _Losses(nn.Module):
    """The loss of each sample (B,) of a part of a batch, float32; what draws decide is decided here."""

    def __init__(self, config: TrainConfig, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._objective: EquilibriumMatching = config.make_objective()
        compiled = config.compile and not self._objective.difference
        field = (
            _compiled(model, activation_checkpointing=config.activation_checkpointing)
            if compiled
            else model
        )
        self._field = (field,)  # not a module of its own
        self._dropout, self._null = config.label_dropout, config.model.num_classes
        self._config, self._device = config, device

    def forward(self, data: Tensor, labels: Tensor | None, draws: SampleRandom) -> Tensor:
        if labels is not None:
            dropped = draws.uniform("label dropout") < self._dropout
            labels = labels.masked_fill(dropped, self._null)
        noise, gamma = draws.normal("noise", data.shape[1:]), draws.uniform("gamma")
        with in_training_precision(self._config, self._device):
            return self._objective.loss_at(self._field[0], data, labels, noise=noise, gamma=gamma)


def _wrapped(
    losses: nn.Module, config: TrainConfig, state: TrainingState, device: torch.device
) -> nn.Module:
    """The same losses, their gradient averaged over the processes where there are several."""
    if distributed.world_size() == 1 or config.parallel == "fsdp":
        return losses  # a model that is cut averages by itself
    places = [device.index] if device.type == "cuda" else None
    # A compiled network gives kernels of 1x1 other strides, which are the same memory.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    return DistributedDataParallel(losses, device_ids=places, gradient_as_bucket_view=True)


def _compiled(model: nn.Module, *, activation_checkpointing: bool) -> Field:
    cut = distributed.is_cut(model)
    if isinstance(model, Energy) and (
        cut or activation_checkpointing
    ):  # what compiles it has room for neither
        if distributed.is_main():
            how = "cut over processes" if cut else "recomputed"
            _log.warning("an explicit energy that is %s is not compiled", how)
        return model
    if cut:
        for block in blocks_of(model):  # what gathers the weights stays outside
            block.compile()
        return model
    return model.compiled()  # type: ignore[operator]  # of a Network or an Energy
