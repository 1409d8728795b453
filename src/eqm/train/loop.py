"""The training loop: one generator, counted in images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from eqm.data import Batch, Source, batches, class_names
from eqm.files import DiskFullError, lock_folder, make_folder
from eqm.randomness import SampleRandom
from eqm.train.checkpoint import (
    go_back,
    has_weights,
    load,
    save,
    save_if_it_fits,
)
from eqm.train.config import TrainConfig
from eqm.train.disk_space import check_space
from eqm.train.distributed import (
    Flag,
    all_agree,
    is_main,
    join,
    local,
    on_main,
    rank,
    world_size,
)
from eqm.train.ema import FOLDER, snapshots_due
from eqm.train.interrupts import Interrupted, interrupts_deferred
from eqm.train.state import Run, TrainingState
from eqm.train.step import make_step

ROLLBACKS = 3
"""Times that a run goes back to the same checkpoint before it gives up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """What one step came to. Reading a tensor, a scalar on the device, waits for the device."""

    images: int
    """Images seen so far, in all."""
    batch: int
    """Images of this step."""
    loss: Tensor
    """Mean loss of the step."""
    gradient_norm: Tensor
    """Norm of the gradient of all weights, before clipping."""
    skipped: Tensor
    """Steps so far that were not taken because loss or gradient were not finite."""
    learning_rate: float
    """Of this step."""
    waited: float
    """Seconds that this step waited for its data."""
    state: TrainingState
    """The run itself."""


def train(config: TrainConfig, source: Source, folder: Path | str) -> Iterator[Progress]:
    """The steps of training on `source` until `config.images` are seen; the end is in `folder`.

    A checkpoint is written every `checkpoint_every` images, at the end, and on Ctrl-C or SIGTERM,
    which then raise `Interrupted`. One on the way that a full disk has no room for is said and left
    out: the one before is kept. Where `folder` holds a checkpoint of the same settings the run goes
    on from it, exactly: what a step draws depends on the seed and the images seen alone, so on as
    many CPU threads an interrupted run ends in the same bits. A complete run has no steps, and
    nothing is written.

    Under `torchrun` every process calls this, iterates, and takes its share of each batch; the first
    one writes. The number of processes may change from one run to the next.

    While the generator is alive, also between its steps, the two signals are held back until a step
    is whole, and `threads` sets torch's number for the process; both are as before when it ends or
    is closed.

    Raises ValueError when the data do not fit the network, the batch cannot be shared equally, a
    checkpoint is of another run, another process trains in `folder`, weights are not finite at a
    checkpoint (the one before is kept), or steps fail again and again, OSError when `folder` cannot be
    written or has too little space.
    """
    _check_fit(config, source)
    _check_shares(config)
    device = join(config.device)
    data = {"name": source.name, "images": len(source), "fingerprint": source.fingerprint}
    data |= getattr(source, "metadata", {})  # such as the encoder of latents
    names = list(class_names(source))
    if config.model.num_classes and names != [str(number) for number in range(len(names))]:
        data["classes"] = names
    run = Run(config, Path(folder), data)
    state = load(config, run.folder, device, data=data)
    state.run = run
    if not _is_complete(run, state):
        on_main(lambda: make_folder(folder))
        check_space(state, config, run.folder)
    return _steps(run, state, source, device)


def _steps(
    run: Run, state: TrainingState, source: Source, device: torch.device
) -> Iterator[Progress]:
    config = run.config
    stopping, rollbacks = Flag(), 0
    saved = state.images if _is_complete(run, state) else -1
    claimed = nullcontext() if saved == state.images else _claimed(run.folder)
    with claimed, _threads(config.threads), interrupts_deferred() as interrupted:
        step = make_step(config, state, device)
        batches = _batches(run, state, source, device)
        state.model.train()
        while state.images < config.images:
            share, before = next(batches), state.images
            labels = share.labels if config.model.num_classes else None
            done = step(share.data, labels, _redrawn(share.random, state.attempt))
            if snapshots_due(
                config.optimizer, before=before, after=state.images, total=config.images
            ):
                _snapshot(run, state)
            if stopping.raised(interrupted()):
                _checkpoint(run, state)
                raise Interrupted(
                    f"interrupted after {state.images:,} of {config.images:,} images, saved: "
                    "run the same command to go on"
                )
            if _passed(config.max_bad_steps * config.batch_size, before, state) and _is_stuck(
                run, state
            ):
                rollbacks += 1
                _roll_back(run, state, rollbacks)
                batches = _batches(run, state, source, device)
                continue
            if _passed(config.checkpoint_every, before, state):
                _check_finite(run, state)
                if not state.streak.item():  # amid a streak it would be none to go back to
                    full = save_if_it_fits(state, config, run.folder, data=run.data)
                    if full:
                        _say(full, "going on, with the checkpoint before, if any, until the next")
                    else:
                        rollbacks, saved = 0, state.images
            yield Progress(
                images=state.images,
                batch=config.batch_size,
                loss=done.loss,
                gradient_norm=done.gradient_norm,
                skipped=state.skipped.clone(),
                learning_rate=done.learning_rate,
                waited=share.waited,
                state=state,
            )
        if saved != state.images:
            _checkpoint(run, state)
        if stopping.last() or (interrupted() and world_size() == 1):
            raise Interrupted("interrupted as the last image was seen: the run is complete, saved")


def _batches(
    run: Run, state: TrainingState, source: Source, device: torch.device
) -> Iterator[Batch]:
    return batches(
        source,
        seed=run.config.seed,
        position=state.images,
        batch_size=run.config.batch_size,
        device=device,
        rank=rank(),
        world_size=world_size(),
    )


def _redrawn(draws: SampleRandom, attempt: int) -> SampleRandom:
    """Other draws for every time that the run went back."""
    return SampleRandom(draws.seed + attempt * 2**40, draws.positions)


def _passed(interval: int, before: int, state: TrainingState) -> bool:
    return state.images // interval > before // interval


def _checkpoint(run: Run, state: TrainingState) -> None:
    _check_finite(run, state)
    save(state, run.config, run.folder, data=run.data)


def _snapshot(run: Run, state: TrainingState) -> None:
    try:
        state.averages.save(run.folder / FOLDER, images=state.images, write=is_main())
    except DiskFullError as error:
        _say(error, "going on without this snapshot")


def _say(reason: object, consequence: str) -> None:
    if is_main():
        _log.warning("%s: %s", reason, consequence)


def _is_complete(run: Run, state: TrainingState) -> bool:
    return state.images >= run.config.images and has_weights(run.folder, state.images)


def _check_finite(run: Run, state: TrainingState) -> None:
    finite = all(local(weight).isfinite().all() for weight in state.model.parameters())
    if not all_agree(finite):
        raise ValueError(
            f"the weights are no longer finite after {state.images:,} images: {_calmer(run)}; "
            f"the checkpoint before, if any, is kept in {run.folder}"
        )


def _calmer(run: Run) -> str:
    clip = "" if run.config.optimizer.clip else " or set optimizer.clip 1"
    return f"lower optimizer.learning_rate{clip}, in another folder"


def _is_stuck(run: Run, state: TrainingState) -> bool:
    return state.streak.item() >= run.config.max_bad_steps


def _roll_back(run: Run, state: TrainingState, times: int) -> None:
    """Puts the last checkpoint into `state`, with other draws from there on."""
    streak, images = int(state.streak), state.images
    _check_finite(run, state)
    if times > ROLLBACKS:
        raise ValueError(
            f"{streak} steps in a row before image {images:,} had no finite loss and gradient, "
            f"and so had other draws {ROLLBACKS} times: {_calmer(run)}; "
            f"the last checkpoint, if any, is kept in {run.folder}"
        )
    go_back(state, run.config, run.folder, data=run.data)
    state.attempt += times
    if is_main():
        _log.warning(
            "%d steps in a row before image %s had no finite loss and gradient: "
            "going back to image %s, with other draws",
            *(streak, f"{images:,}", f"{state.images:,}"),
        )


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keeps other runs out of the folder for a while."""
    files: list[BinaryIO] = []
    on_main(lambda: files.append(lock_folder(folder)))
    try:
        yield
    finally:
        for file in files:
            file.close()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Sets torch's number of CPU threads for a while; 0 leaves it."""
    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _check_shares(config: TrainConfig) -> None:
    if config.batch_size % world_size():
        nearest = max(round(config.batch_size / world_size()), 1) * world_size()
        raise ValueError(
            f"batch_size must be a multiple of the number of processes, {world_size()}; got "
            f"{config.batch_size}: take {nearest}"
        )


def _check_fit(config: TrainConfig, source: Source) -> None:
    if config.images == -1:
        raise ValueError(
            "images -1, to pick a number that suits the data, is for the command `eqm train folder`: "
            "set the number"
        )
    model = config.model
    if model.shape != source.shape or model.num_classes not in (0, source.num_classes):
        raise ValueError(
            f"the network is for {model.num_classes} classes of images {tuple(model.shape)}; "
            f"{source.name} has {source.num_classes} classes of {source.shape}: "
            "set model.shape and model.num_classes"
        )
