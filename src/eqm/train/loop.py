"""The training loop: one generator, counted in images."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from eqm.data import Images, shares
from eqm.devices import pick_device
from eqm.field import Field
from eqm.files import make_folder
from eqm.randomness import Draws
from eqm.train.config import TrainConfig
from eqm.train.ema import update_average
from eqm.train.state import TrainingState, load, save


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; the run was saved first. The message says where."""


@dataclass(frozen=True)
class Progress:
    """What one step came to."""

    images: int
    """Images seen so far, in all."""
    batch: int
    """Images of this step."""
    loss: Tensor
    """Mean loss of the step, a scalar on the training device: reading it waits for the device."""
    state: TrainingState
    """The run itself."""


def train(config: TrainConfig, images: Images, folder: Path | str) -> Iterator[Progress]:
    """The steps of training on `images` until `config.images` are seen; the end is in `folder`.

    A checkpoint is written every `checkpoint_every` images, at the end, and on Ctrl-C or SIGTERM,
    which then raise `Interrupted`. Where `folder` holds a checkpoint of the same settings the run
    goes on from it, exactly: what a step draws depends on the seed and the images seen alone, so on
    as many CPU threads an interrupted run ends in the same bits.

    While the steps are taken, the two signals are held back until a step is whole, and `threads`
    sets torch's number for the process.

    Raises ValueError when the images do not fit the network, a checkpoint is of another run, or
    weights are not finite at a checkpoint (the one before is kept), OSError when `folder` cannot be
    written.
    """
    _check_fit(config, images)
    folder, device = make_folder(folder), pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    source = {"name": images.name, "images": len(images), "fingerprint": images.fingerprint}
    state = load(config, folder, device, data=source)

    def checkpoint() -> None:
        if not all(weight.isfinite().all() for weight in state.model.parameters()):
            raise ValueError(
                f"the weights are no longer finite after {state.images:,} images: lower "
                "optimizer.learning_rate or set optimizer.clip 1, in another folder; "
                f"the checkpoint before, if any, is kept in {folder}"
            )
        save(state, config, folder, data=source)

    return _steps(config, state, images, checkpoint, device)


def _steps(
    config: TrainConfig,
    state: TrainingState,
    images: Images,
    checkpoint: Callable[[], None],
    device: torch.device,
) -> Iterator[Progress]:
    step = make_step(config, state, device)
    batches = shares(
        images,
        seed=config.seed,
        position=state.images,
        batch_size=config.batch_size,
        device=device,
    )
    state.model.train()
    with interrupts_deferred() as interrupted:
        for share in batches:
            if state.images >= config.images:
                break
            position = state.images
            labels = share.labels if config.model.num_classes else None
            loss = step(share.data, labels, share.draws)
            if interrupted():
                checkpoint()
                raise Interrupted(
                    f"interrupted after {state.images:,} of {config.images:,} images, saved: "
                    "run the same command to go on"
                )
            if state.images // config.checkpoint_every > position // config.checkpoint_every:
                checkpoint()
            yield Progress(state.images, config.batch_size, loss, state)
        checkpoint()
        if interrupted():
            raise Interrupted("interrupted as the last image was seen: the run is complete, saved")


def make_step(
    config: TrainConfig, state: TrainingState, device: torch.device
) -> Callable[[Tensor, Tensor | None, Draws], Tensor]:
    """The function that steps the optimizer on a batch (data, labels, its draws) and returns its mean loss."""
    objective = config.make_objective()
    field: Field = state.model
    if config.compile and not objective.difference:
        field = state.model.compiled()  # type: ignore[operator]  # of a Network or an Energy
    null_label = config.model.num_classes
    settings = config.optimizer
    bfloat16 = config.precision == "bfloat16" or (
        config.precision == "auto" and device.type == "cuda"
    )

    def step(data: Tensor, labels: Tensor | None, draws: Draws) -> Tensor:
        if labels is not None:
            dropped = draws.uniform("label dropout") < config.label_dropout
            labels = labels.masked_fill(dropped, null_label)
        noise, gamma = draws.normal("noise", data.shape[1:]), draws.uniform("gamma")
        with torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext():
            loss = objective.at(field, data, labels, noise=noise, gamma=gamma).mean()
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if settings.clip:
            nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
        state.images += len(data)
        for group in state.optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, state.images / max(settings.warmup, 1))
        state.optimizer.step()
        update_average(
            state.average,
            state.model,
            images=state.images,
            batch=len(data),
            halflife=settings.ema_halflife,
        )
        return loss.detach()

    return step


@contextmanager
def interrupts_deferred() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C or SIGTERM came since; a second one interrupts at once.

    Signals can only be caught in the main thread; elsewhere the function is always False and
    nothing changes.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_fit(config: TrainConfig, images: Images) -> None:
    model = config.model
    if model.shape != images.shape or model.num_classes not in (0, images.num_classes):
        raise ValueError(
            f"the network is for {model.num_classes} classes of images {tuple(model.shape)}; {images.name} has "
            f"{images.num_classes} classes of {images.shape}: set model.shape and model.num_classes"
        )
