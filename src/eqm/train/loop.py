"""The training loop: one generator, counted in images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqm.data import Batch, Source, as_source, batches, class_names
from eqm.files import RUN, DiskFullError, check_folder, claim_folder, lock_folder, sweep
from eqm.models import NetworkConfig
from eqm.randomness import SampleRandom
from eqm.sampling.model import describe
from eqm.train.checkpoint import (
    BEST,
    go_back,
    load,
    mend,
    mend_best,
    save,
    save_if_it_fits,
)
from eqm.train.config import CHECKPOINTS, TrainConfig
from eqm.train.disk_space import check_space
from eqm.train.distributed import (
    Flag,
    all_agree,
    is_main,
    join,
    local,
    on_main,
    rank,
    refuse,
    world_size,
)
from eqm.train.ema import FOLDER, snapshots_due
from eqm.train.interrupts import Interrupted, interrupts_deferred
from eqm.train.state import Run, TrainingState
from eqm.train.step import Step, compiles, make_step

MAX_ROLLBACKS = 3
"""How often a run goes back to the same checkpoint before it gives up."""
LINES, MAX_SPACING = 64, 2**14
"""Lines of the log each time that the images seen double, at least; images between two lines, at most."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The numbers of one step. Reading a tensor, a scalar on the device, waits for the device."""

    images: int
    """Images seen so far, in all."""
    batch: int
    """Images of this step."""
    loss: Tensor
    """Mean loss of the step."""
    gradient_norm: Tensor
    """Norm of the gradient of all weights, before clipping."""
    means: Tensor
    """Mean loss and mean gradient norm since the last regular line of the log (`line_due`), (2,); those
    that are not finite are left out."""
    skipped: Tensor
    """Steps skipped so far because the loss or the gradient was not finite."""
    learning_rate: float
    """Learning rate of this step."""
    waited: float
    """Seconds that this step waited for its data."""
    state: TrainingState
    """Weights, their average and the optimizer."""


def train(
    config: TrainConfig, data: Any, folder: Path | str, *, model: nn.Module | None = None
) -> Iterator[Progress]:
    """The steps of training on `data` until `config.images` are seen; the model is saved in `folder`.

    `data` is a tensor (N, ...), a pair of tensors (data, labels), a torch Dataset, a DataLoader or a
    source of eqm.data. `model` is any module, called as `model(x, labels)`; it replaces the network
    of the settings and takes its shape from the data. It is not changed: a copy is trained. Give it
    `num_classes` to train it with labels.

    A checkpoint is written every `checkpoint_every` images, at the end, and on Ctrl-C or SIGTERM,
    which then raise `Interrupted`. It is written when the next step is asked for, so it comes after
    all that the caller did with this step: what a killed run did after its last checkpoint is done
    again. If the disk is full, a checkpoint on the way is skipped with a warning. A run whose folder
    holds a checkpoint of the same settings resumes exactly: all random numbers depend on the seed and
    the images seen alone, so with as many CPU threads the weights are the same to the bit. A complete
    run has no steps. Nothing is written, unless its weights are damaged: then they are written again,
    with a warning. A run that stopped early is complete, until `images` or `stop_after` change.

    Under `torchrun` every process calls this, iterates, and takes its share of each batch; the first
    one writes. The number of processes may change when a run is resumed.

    While the generator is alive, the two signals are held back until a step is complete, and
    `threads` sets torch's number of threads. Both are restored when it ends or is closed.

    Raises ValueError if the data do not fit the network, the batch cannot be shared equally, the
    folder holds other files or another run, or is used by another one, weights are not finite at a
    checkpoint (the one before is kept), steps fail repeatedly, or no step was finite. Raises OSError
    if `folder` cannot be written or has too little space.
    """
    source: Source = as_source(data, config=config.data)
    if model is not None:
        config = replace(config, model=_config_of(model, source))
    if config.model.text.encoder:
        source = config.worded(source)
        config = config if model is not None else config.suited_to(source)
    _check_fit(config, source)
    _check_shares(config)
    device = join(config.device)
    about = {"name": source.name, "images": len(source), "fingerprint": source.fingerprint}
    about |= getattr(source, "metadata", {})  # such as the encoder of latents
    names = list(class_names(source))
    if config.model.num_classes and names != [str(number) for number in range(len(names))]:
        about["classes"] = names
    run = Run(config, Path(folder), about)
    on_main(lambda: check_folder(folder, RUN, name="folder"))
    with ExitStack() as stack:
        if there := on_main(run.folder.is_dir):
            _lock(run, stack)
        state = load(config, run.folder, device, data=about, network=model)
        state.run = run
        if _is_complete(run, state):
            mend(state, config, run.folder, data=about)
            return _steps(run, state, source, device, ExitStack())
        on_main(lambda: claim_folder(folder, RUN))
        check_space(state, config, run.folder)
        if not there:
            _lock(run, stack)
        on_main(lambda: mend_best(state, config, run.folder, about))
        return _steps(run, state, source, device, stack.pop_all())


def _lock(run: Run, stack: ExitStack) -> None:
    """Returns nothing; keeps other runs out of the folder until the stack is closed, and removes what
    killed ones left there.

    A folder that cannot be written to is not locked: a complete run needs no more."""

    def lock() -> None:
        with suppress(OSError):
            stack.enter_context(closing(lock_folder(run.folder)))
            for part in ("", CHECKPOINTS, f"{CHECKPOINTS}/{BEST}", BEST, FOLDER, "pictures"):
                sweep(run.folder / part, locked=True)

    on_main(lock)


def line_due(before: int, after: int) -> bool:
    """Whether the log has a line at the step from `before` to `after` images.

    It depends on the images alone, so that a resumed run has the same lines. Every step has one at
    first. Later there are 64 to 128 until the number of images doubles, then one every 16,384 images.

    >>> [line_due(n - 256, n) for n in (256, 2**14, 2**16 + 256, 2**16 + 1024)]
    [True, True, False, True]
    """
    spacing = min(max((1 << after.bit_length() - 1) // LINES, 1), MAX_SPACING)
    return after // spacing > before // spacing


def _config_of(model: nn.Module, source: Source) -> NetworkConfig:
    config = getattr(model, "config", None)
    if isinstance(config, NetworkConfig):
        return config
    info = describe(model)
    return NetworkConfig(
        shape=tuple(source.shape),
        num_classes=info.num_classes or 0,
        noise_conditioning=info.noise_conditioning,
    )


def _steps(
    run: Run, state: TrainingState, source: Source, device: torch.device, lock: ExitStack
) -> Iterator[Progress]:
    config = run.config
    interrupted_anywhere, stopped, rollbacks = Flag(), False, 0
    saved = state.images if _is_complete(run, state) else -1
    with lock, cpu_threads(config.threads), interrupts_deferred() as interrupted:
        step = make_step(config, state, device)
        batches = _batches(run, state, source, device)
        state.model.train()
        interrupted.immediate = compiles(config, device)  # the first step compiles, for minutes
        while not _is_complete(run, state):
            batch, before = next(batches), state.images
            labels = batch.labels if config.model.num_classes else None
            done = step(batch.data, labels, _redrawn(batch.random, state.rollbacks))
            interrupted.immediate = False
            if snapshots_due(
                config.optimizer, before=before, after=state.images, total=config.images
            ):
                _snapshot(run, state)
            stopped = interrupted_anywhere.raised(interrupted())
            if _passed(config.max_bad_steps * config.batch_size, before, state) and _is_stuck(
                run, state
            ):
                rollbacks += 1
                _roll_back(run, state, rollbacks)
                batches = _batches(run, state, source, device)
                continue
            state.sums += _finite(done)
            sums = state.sums.clone()
            if line_due(before, state.images):
                state.sums.zero_()
            yield Progress(
                images=state.images,
                batch=config.batch_size,
                loss=done.loss,
                gradient_norm=done.gradient_norm,
                means=sums[0] / sums[1],
                skipped=state.skipped.clone(),
                learning_rate=done.learning_rate,
                waited=batch.waited,
                state=state,
            )
            # After the yield, so that a checkpoint follows the evaluation of the same weights.
            if stopped and not _is_complete(run, state):
                _checkpoint(run, state)
                raise Interrupted(
                    f"interrupted after {state.images:,} of {config.images:,} images, saved: "
                    "run the same command to resume"
                )
            if _passed(config.checkpoint_every, before, state):
                _check_finite(run, state)
                if not state.bad_steps.item():  # otherwise there may be nothing good to go back to
                    full = save_if_it_fits(state, config, run.folder, data=run.data)
                    if full:
                        _warn(full, "going on without this checkpoint")
                    else:
                        rollbacks, saved = 0, state.images
        if saved != state.images:
            _check_some_finite(run, state)
            _checkpoint(run, state)
        last = interrupted() if world_size() == 1 else interrupted_anywhere.last()
        if stopped or last:
            raise Interrupted("interrupted after the last image: the run is complete and saved")


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


def _redrawn(draws: SampleRandom, rollbacks: int) -> SampleRandom:
    """Other random numbers after each time that the run went back."""
    return SampleRandom(draws.seed + rollbacks * 2**40, draws.positions)


def _passed(interval: int, before: int, state: TrainingState) -> bool:
    return state.images // interval > before // interval


def _checkpoint(run: Run, state: TrainingState) -> None:
    _check_finite(run, state)
    save(state, run.config, run.folder, data=run.data)


def _snapshot(run: Run, state: TrainingState) -> None:
    try:
        folder = run.folder / FOLDER
        state.snapshots |= state.averages.save(folder, images=state.images, write=is_main())
    except DiskFullError as error:
        _warn(error, "going on without this snapshot")


def _warn(reason: object, consequence: str) -> None:
    if is_main():
        _log.warning("%s: %s", reason, consequence)


def _is_complete(run: Run, state: TrainingState) -> bool:
    return state.images >= run.config.images or state.stopping


def _finite(done: Step) -> Tensor:
    """Loss and gradient norm, 0 where they are not finite; below, 1 where they are finite; (2, 2)."""
    values = torch.stack([done.loss, done.gradient_norm]).float()
    finite = values.isfinite()
    return torch.stack([values.where(finite, 0.0), finite.float()])


def _check_some_finite(run: Run, state: TrainingState) -> None:
    steps = state.images // run.config.batch_size
    if state.skipped.item() >= steps:
        refuse(
            ValueError(
                f"none of the {steps:,} steps had a finite loss and gradient, so nothing was learnt: "
                f"{_advice(run)}, or lower objective.scale"
            )
        )


def _check_finite(run: Run, state: TrainingState) -> None:
    finite = all(local(weight).isfinite().all() for weight in state.model.parameters())
    if not all_agree(finite):
        refuse(
            ValueError(
                f"the weights are no longer finite after {state.images:,} images: {_advice(run)}; "
                f"the checkpoint before, if any, is kept in {run.folder}"
            )
        )


def _advice(run: Run) -> str:
    clip = "" if run.config.optimizer.clip else " or set optimizer.clip 1"
    return f"lower optimizer.learning_rate{clip}, in another folder"


def _is_stuck(run: Run, state: TrainingState) -> bool:
    return state.bad_steps.item() >= run.config.max_bad_steps


def _roll_back(run: Run, state: TrainingState, times: int) -> None:
    """Returns nothing; loads the last checkpoint into `state`, with other random numbers from there."""
    bad, images = int(state.bad_steps), state.images
    _check_finite(run, state)
    if times > MAX_ROLLBACKS:
        refuse(
            ValueError(
                f"{bad} steps in a row before image {images:,} had no finite loss and gradient, also "
                f"after {MAX_ROLLBACKS} tries with other random numbers: {_advice(run)}; "
                f"the last checkpoint, if any, is kept in {run.folder}"
            )
        )
    go_back(state, run.config, run.folder, data=run.data)
    state.rollbacks += times
    if is_main():
        _log.warning(
            "%d steps in a row before image %s had no finite loss and gradient: "
            "going back to image %s, with other random numbers",
            *(bad, f"{images:,}", f"{state.images:,}"),
        )


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Sets torch's number of CPU threads inside the context; 0 leaves it."""
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
            "images must be at least 1; got -1, which only `eqm train folder` and `eqm train finetune` "
            "replace: set a number"
        )
    model = config.model
    if config.objective.guidance != 1 and not model.num_classes:
        raise ValueError(
            f"objective.guidance {config.objective.guidance:g} needs a network with classes; model.num_classes "
            "is 0: take data with labels, or set objective.guidance 1"
        )
    if model.shape != source.shape or model.num_classes not in (0, source.num_classes):
        raise ValueError(
            f"the network is for {model.num_classes} classes and samples of shape {tuple(model.shape)}; "
            f"{source.name} has {source.num_classes} classes and shape {tuple(source.shape)}: "
            "set model.shape and model.num_classes, or pass config.suited_to(source)"
        )
