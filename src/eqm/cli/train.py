"""`eqm train`: a recipe, with any setting changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union

import tyro

from eqm.recipes import DESCRIPTIONS, RECIPES
from eqm.registry import register
from eqm.train.config import TrainConfig

if TYPE_CHECKING:
    Recipe = TrainConfig
else:
    Recipe = Union[  # noqa: UP007 - one member per recipe
        tuple(
            Annotated[
                TrainConfig,
                tyro.conf.subcommand(
                    name, default=config, prefix_name=False, description=DESCRIPTIONS[name]
                ),
            ]
            for name, config in RECIPES.items()
        )
    ]

MEASURED = 100_000_000
"""A dry run measures networks of fewer parameters, which fit into the memory of a laptop."""


@register("command", "train")
def train(
    config: Annotated[Recipe, tyro.conf.arg(name="")],
    output: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: runs/NAME)")] = None,
    dry_run: bool = False,
) -> None:
    """Train a model from a recipe.

    Example: `eqm train digits --images 100000 --model.width 32`

    The same command again continues where it stopped. `--model NAME` takes another network, such as one of your
    own. Several GPUs: `torchrun --nproc-per-node 8 -m eqm train RECIPE`.

    Args:
        config: The recipe.
        output: Folder for the weights, the checkpoints and the log.
        dry_run: Only print the settings, the size and cost of the network, and the time the run takes, from a
            few measured steps.
    """
    from eqm.cli.output import check_options, show_settings
    from eqm.data import MissingDataError, open_source, split
    from eqm.devices import pick_device
    from eqm.files import RUN, check_folder
    from eqm.models import cost
    from eqm.monitor import duration, estimate_time, make_monitor, run
    from eqm.recipes.pixels import choose_data, choose_network, choose_words
    from eqm.sampling import check_sampling
    from eqm.train import Interrupted, distributed, keep_best
    from eqm.train import train as training_steps
    from eqm.train.step import compiles

    folder = output or Path("runs") / config.name
    check_options({"config": config, "output": folder})
    check_folder(folder, RUN)
    picks: list[str] = []
    seen = val_data = None
    asked, recipe = config.model.shape, RECIPES.get(config.name)
    try:
        config, worded = choose_words(config)
        config, picks = choose_data(config)
        picks = [*worded, *picks]
        seen = open_source(config.data)
        if config.data.val_fraction:
            seen, val_data = split(seen, config.data.val_fraction)
        seen = config.worded(seen)
        val_data = None if val_data is None else config.worded(val_data, like=seen)
        if recipe and asked not in (recipe.model.shape, seen.shape):
            raise ValueError(
                f"model.shape must be the shape of the data, {seen.shape}; got {asked}: leave it out, or set "
                "data.size and data.channels"
            )
        config, more = choose_network(config, seen)
        config, picks = config.suited_to(seen), picks + more
        kept = 0 if val_data is None else len(val_data)
        about = f"{seen.name}: {len(seen):,} training images, {kept:,} validation images"
    except MissingDataError as error:
        if not dry_run:
            raise
        about = f"the data are missing: {error}"
    objective = config.make_objective()
    if not objective.noise_conditioning:  # flow matching uses no rule and no stop
        picks += [
            f"note: {sentence}" for sentence in check_sampling(config.sampling, objective.decay)
        ]
    size = cost(config.model)
    if distributed.is_main():
        for pick in picks:
            print(pick)
        if dry_run:
            show_settings({**config.flat(), "output": folder})
        print(about)
        print(
            f"{size.parameters:,} parameters, {size.flops / 1e6:,.1f} MFLOP per image and evaluation"
        )
        compiled = compiles(config, pick_device(config.device))
        if compiled:
            print(
                "compiling the network: the first step may take minutes (--compile off skips this)"
            )
        if dry_run and seen is not None and size.parameters < MEASURED:
            time = duration(estimate_time(config, seen))
            print(f"about {time} of training on this device{', without compiling' * compiled}")
    if dry_run:
        return
    monitor = make_monitor(config, folder, val_data, keep_best=keep_best, captions=val_data or seen)
    try:
        end = run(
            training_steps(config, seen, folder),
            total=config.images,
            folder=folder,
            monitor=monitor,
        )
    except Interrupted:
        if not distributed.is_main():
            raise SystemExit(130) from None  # the first process prints the reason
        raise
    finally:
        distributed.leave()
    if distributed.is_main():
        done = f"{end.images:,} images seen" if end else "this run was complete already"
        use = "detect" if config.data.features else "sample"
        print(f"{done}; the model is in {folder}: try `eqm {use} {folder}`")
