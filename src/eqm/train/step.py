"""One training step: the gradient of a batch, then the update of the weights and their average."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eqm.couplings import couple
from eqm.energy import Energy
from eqm.field import Field
from eqm.models import Network, cost
from eqm.objective import EquilibriumMatching
from eqm.randomness import SampleRandom
from eqm.train import distributed
from eqm.train.config import TrainConfig
from eqm.train.ema import update_average
from eqm.train.folding import unfolded
from eqm.train.graphs import Recorded
from eqm.train.optimizer import learning_rate_at
from eqm.train.state import TrainingState

TRIALS = 2
"""Steps that several processes try alone first: the first one, and the next one, when the optimizer
has allocated its memory."""

AGREE_WITHIN = timedelta(minutes=1)
"""How long a process that ran out of memory waits for the others. With FSDP, a process that did not
run out hangs in an exchange, and only the end of this process ends that."""

COMPILE_FROM = 5e14
"""Floating-point operations of a run from which `compile auto` compiles on a CPU: more than an hour on
one core. Compiling takes minutes there, and steps become about a tenth faster."""

FORWARD_PASSES = {"implicit": 3, "dot": 6, "norm": 6}
"""Cost of training on one image, in forward passes: a backward pass counts twice, and an explicit
energy is differentiated twice."""

_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """The numbers of one step. Reading a tensor waits for the device."""

    loss: Tensor
    """Mean over the batch of all processes, a scalar."""
    gradient_norm: Tensor
    """Norm of the gradient of all weights before clipping, a scalar."""
    learning_rate: float


def training_flops(config: TrainConfig) -> float:
    """Floating-point operations of training on one image; activation checkpointing does not count.

    Raises ValueError for a network that is not registered.
    """
    return FORWARD_PASSES[config.objective.energy] * cost(config.model).flops


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether training compiles the network.

    It depends on the settings and the kind of device alone, so a resumed run decides the same.
    """
    if config.objective.gradient == "difference" or config.compile != "auto":
        return config.objective.gradient == "exact" and config.compile == "on"
    if device.type != "cpu":
        return device.type == "cuda"
    try:
        return training_flops(config) * config.images >= COMPILE_FROM
    except ValueError:  # a network that is not registered
        return False


def training_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The dtype of matrix products in training."""
    low = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if low else torch.float32


def in_training_precision(
    config: TrainConfig, device: torch.device
) -> AbstractContextManager[object]:
    """A context in which the network computes in the precision of training."""
    dtype = training_dtype(config, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def make_step(
    config: TrainConfig, state: TrainingState, device: torch.device
) -> Callable[[Tensor, Tensor | None, SampleRandom], Step]:
    """A function that takes one step on this process's share of a batch (data, labels, draws).

    The gradient is accumulated over micro-batches. If memory runs out, their size is halved and the
    step starts again with the same draws. A step with a non-finite loss or gradient changes no weight
    and is counted in the state. No step waits for the device, if the optimizer is fused.
    """
    losses = _wrapped(_Losses(config, state, device), config, state, device)
    optimizer, settings = state.optimizer, config.optimizer
    weights = [weight for weight in state.model.parameters() if weight.requires_grad]
    micro, trials = config.micro_batch, TRIALS if distributed.world_size() > 1 else 0
    coupling = config.objective.make_coupling()

    def noise_of(data: Tensor, draws: SampleRandom) -> Tensor:
        return draws.normal("noise", data.shape[1:])

    def in_pairs(data: Tensor, labels: Tensor | None, draws: SampleRandom) -> Tensor:
        """The noise of the whole share, coupled with its data."""
        classes = labels if config.objective.coupling_within_class else None
        noise, uniform = noise_of(data, draws), draws.uniform("coupling")
        return couple(coupling, data, noise, uniform, labels=classes)  # type: ignore[arg-type]

    def gradient(
        data: Tensor, labels: Tensor | None, draws: SampleRandom, together: bool
    ) -> Tensor:
        """The mean loss of the share; the gradient is accumulated in the weights."""
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        coupled = None if coupling is None else in_pairs(data, labels, draws)
        for rows in slices(len(data), micro):
            last = rows.stop == len(data)
            apart = isinstance(losses, DistributedDataParallel) and not (last and together)
            with losses.no_sync() if apart else nullcontext():  # type: ignore[operator]
                chosen = None if labels is None else labels[rows]
                noise = noise_of(data[rows], draws[rows]) if coupled is None else coupled[rows]
                loss = losses(data[rows], noise, chosen, draws[rows]).sum() / len(data)
                loss.backward()
            total += loss.detach()
        return total

    def fits(
        data: Tensor, labels: Tensor | None, draws: SampleRandom, together: bool
    ) -> Tensor | None:
        """The result of `gradient`, or None if memory ran out."""
        try:
            return gradient(data, labels, draws, together)
        except torch.OutOfMemoryError:
            return None  # the memory of the failed call is free only after this block

    def shrink(share: int) -> None:
        nonlocal micro, trials
        optimizer.zero_grad(set_to_none=True)
        tried = min(micro or share, share)
        if tried == 1:
            raise ValueError(
                f"{device} has too little memory for one image at a time: set activation_checkpointing, "
                "train a smaller network, or use several processes with torchrun and parallel fsdp"
            )
        micro = -(-tried // 2)
        trials = TRIALS if distributed.world_size() > 1 else 0
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if distributed.is_main():
            _log.warning("memory ran out at %d images at once: trying %d", tried, micro)

    def out_of_memory(data: Tensor) -> ValueError:
        return ValueError(
            "memory ran out on one process alone: run the same command with "
            f"micro_batch {max((micro or len(data)) // 2, 1)} to resume from the checkpoint"
        )

    def backward(data: Tensor, labels: Tensor | None, draws: SampleRandom) -> Tensor:
        nonlocal trials
        while True:
            if trials:
                # Without an exchange, so that a process without memory does not block the others.
                tried = fits(data, labels, draws, together=False)
                alone = tried is None and config.parallel == "fsdp"
                try:
                    agreed = distributed.all_agree(
                        tried is not None, within=AGREE_WITHIN if alone else None
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
        """Loss, gradient norm, and 1 if the step was skipped, else 0."""
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

    recorded = compiles(config, device) and device.type == "cuda" and distributed.world_size() == 1
    recorded = recorded and coupling is None  # its work on the CPU cannot be recorded
    take = Recorded(update, optimizer, device) if recorded else update

    def step(data: Tensor, labels: Tensor | None, draws: SampleRandom) -> Step:
        batch = len(data) * distributed.world_size()
        images = state.images + batch
        rate = learning_rate_at(settings, images=images, total=config.images)
        loss, norm, bad = take(data, labels, draws, rate)
        state.images = images
        state.skipped += bad
        state.bad_steps.add_(1).mul_(bad)
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

    A fused optimizer reads `bad` on the device, as with `torch.amp.GradScaler`; for another one, this
    waits for the device.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, bad  # type: ignore[attr-defined]
        optimizer.step()
    elif not bool(bad):
        optimizer.step()


def slices(length: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover 0..length; one slice if `size` is 0.

    >>> list(slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = size or length
    for first in range(0, length, size):
        yield slice(first, min(first + size, length))


class _Losses(nn.Module):
    """The loss of each sample (B,) of a micro-batch, float32, with random numbers from `draws`."""

    def __init__(self, config: TrainConfig, state: TrainingState, device: torch.device) -> None:
        super().__init__()
        self.model = model = state.model
        self._objective: EquilibriumMatching = config.make_objective()
        field = _compiled(model, config) if compiles(config, device) else model
        field = unfolded(field, state.average, config)
        self._field = (field,)  # in a tuple, so that it is not registered as a second module
        self._dropout, self._null = config.label_dropout, config.model.num_classes
        self._config, self._device = config, device

    def forward(
        self, data: Tensor, noise: Tensor, labels: Tensor | None, draws: SampleRandom
    ) -> Tensor:
        if labels is not None:
            dropped = draws.uniform("label dropout") < self._dropout
            dropped = dropped.view(-1, *[1] * (labels.ndim - 1))  # of sentences, all tokens
            labels = labels.masked_fill(dropped, self._null)
        gamma, weight = self._objective.distribution.draw(draws.uniform("gamma"))
        with in_training_precision(self._config, self._device):
            loss = self._objective.loss_at(self._field[0], data, labels, noise=noise, gamma=gamma)
        return weight * loss


def _wrapped(
    losses: nn.Module, config: TrainConfig, state: TrainingState, device: torch.device
) -> nn.Module:
    """The same losses, with gradients averaged over the processes if there are several."""
    if distributed.world_size() == 1 or config.parallel == "fsdp":
        return losses  # FSDP averages by itself
    places = [device.index] if device.type == "cuda" else None
    # A compiled network gives 1x1 kernels other strides, for the same memory.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    return DistributedDataParallel(losses, device_ids=places, gradient_as_bucket_view=True)


def _compiled(model: nn.Module, config: TrainConfig) -> Field:
    sharded = distributed.is_sharded(model)
    if isinstance(model, Energy) and (sharded or config.activation_checkpointing):
        if distributed.is_main():
            what = "FSDP" if sharded else "activation checkpointing"
            _log.warning("an explicit energy with %s is not compiled", what)
        return model
    # Torch's default is a temporary folder. In this one, a resumed run finds its compiled code.
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(cache) / "eqm" / "torchinductor"))
    if sharded:
        for block in distributed.blocks_of(model):  # the gathering of weights stays outside
            block.compile()
        return model
    if isinstance(model, Network | Energy):
        return model.compiled()
    compiled: Field = torch.compile(model)
    return compiled
