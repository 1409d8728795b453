"""`eqm sample`: images from a trained model."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from eqm.cli import options
from eqm.cli.options import STORED, Sheet
from eqm.registry import register
from eqm.schema import Count

if TYPE_CHECKING:
    from eqm.descent import FinishedSample


@register("command", "sample")
def sample(
    model: options.Model,
    labels: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: all)")] = (),
    prompt: options.Prompt = (),
    count: Annotated[
        Count | None,
        tyro.conf.arg(help_behavior_hint="(default: 10 of each label, at most 100 of all classes)"),
    ] = None,
    output: Annotated[Path, options.Output] = Path("samples.png"),
    seed: options.Seed = 0,
    vae: options.Vae = None,
    animate: Path | None = None,
    batch_size: options.BatchSize = 256,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    compile: bool = False,
    dry_run: bool = False,
    sampling: options.SamplingOptions = STORED,
    sheet: options.SheetOptions = Sheet(),
) -> None:
    """Draw samples from a trained model.

    Example: `eqm sample fashion-mnist --labels sneaker bag --count 20`

    A model that was trained with captions draws what a sentence says:
    `eqm sample MODEL --prompt "a smiling cat" --prompt "a red hat"`.

    Models of signals, videos and points are drawn too: .npz and folders hold their numbers in the units of the
    training data, .png shows curves, frames or points, .gif and .mp4 show videos.

    Under torchrun the processes share the work. The first process writes the same images as one process would.

    Args:
        labels: Classes to draw, by number or name; each gets an equal share. `eqm info MODEL` lists them.
        count: Number of samples.
        animate: Also write the first 100 images of a model of images on their way from noise, as a .gif or .mp4.
        compile: Compile the network first (torch.compile). This is faster for many images.
        dry_run: Only print the settings.
    """
    from dataclasses import asdict, replace

    import torch

    from eqm.cli.images import check_samples, conditions_of, open_model
    from eqm.cli.output import ANY, check_output, show_settings, write_images, write_samples
    from eqm.descent import collect
    from eqm.files import make_folder
    from eqm.pictures import ANIMATION_SUFFIXES, check_channels, grid
    from eqm.pictures import animate as write_animation
    from eqm.sampling import chosen_labels, class_names, describe, diagnose, label_number
    from eqm.tasks import draw, gather, trajectory
    from eqm.train import distributed

    check_output(output, ANY)
    if animate is not None:
        check_output(animate, ANIMATION_SUFFIXES, name="animate")
    place = distributed.join(device)
    atexit.register(distributed.leave)
    network, encoder = open_model(
        model,
        vae=vae,
        device=place,
        precision=precision,
        compile=compile,
        output=output,
    )
    of_images = len(network.config.shape) == 3
    if not of_images and animate is not None:
        raise ValueError("--animate is for models of images: leave it out, or write an .npz")
    shape = encoder.image_shape_of(network.config.shape)
    if animate is not None:
        check_channels(shape[0])
    settings = sampling.applied(network)
    conditions_of(labels, prompt, network)
    words = describe(network).sentence > 0
    num_classes = 0 if words else network.config.num_classes
    classes: list[int] = [label_number(network, label) for label in labels]
    classes = list(range(len(prompt))) if words else classes or list(range(num_classes))
    if count is None:
        count = 10 * len(labels or prompt) or min(10 * len(classes), 100) or 64
    check_samples(count, shape, sheet.scale)
    chosen = [classes[k * len(classes) // count] for k in range(count)] if classes else None
    labels_drawn = None if chosen is None else torch.tensor(chosen)
    if words and chosen:
        labels_drawn = chosen_labels(network, [prompt[k] for k in chosen], count)
    if dry_run:
        drawn = {"prompts": prompt} if words else {"labels": chosen}
        about = {"count": count, **drawn, "encoder": encoder.name, "output": output}
        show_settings({**asdict(settings), **about})
        return
    make_folder(output.parent)
    if animate is not None:
        make_folder(animate.parent)
    ends: list[FinishedSample] = []
    failure: BaseException | None = None
    try:
        for end in draw(
            network, labels_drawn, count=count, seed=seed, sampling=settings, batch_size=batch_size
        ):
            ends.append(end)
    except (KeyboardInterrupt, ValueError, RuntimeError, MemoryError) as error:
        failure = error
    ends = gather(ends)  # every process must call this: the others wait for it
    if not distributed.is_main():
        if failure is not None:
            print(f"eqm: {str(failure) or 'interrupted'}", file=sys.stderr)
        return
    if failure is None and len(ends) < count:
        failure = RuntimeError("another process failed")
    if failure is not None and not ends:
        raise failure
    solution = collect(ends)
    columns = 10 if classes else 8
    names = [*(prompt or class_names(network) or map(str, range(num_classes))), "none"]
    rows = [
        {names[k] for k in (chosen or [])[at : at + columns]} for at in range(0, count, columns)
    ]
    if not of_images:
        write_samples(solution.x, output, metadata=network.metadata, columns=columns, sheet=sheet)
    else:
        write_images(
            (encoder.decode(x) for x in solution.x.split(batch_size)),
            output,
            columns=columns,
            sheet=sheet,
            rows=[" ".join(row) if len(row) == 1 else "" for row in rows],
        )
    print(f"{solution}: {output}")
    if failure is not None:
        sentence = (
            f"{str(failure) or 'interrupted'}; {len(ends)} of {count} samples are in {output}"
        )
        raise (KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else RuntimeError)(
            sentence
        ) from failure
    for sentence in diagnose(network, solution, labels_drawn, sampling=settings, seed=seed):
        print(f"eqm: note: {sentence}", file=sys.stderr)
    if animate is not None:
        shown = None if labels_drawn is None else labels_drawn[:100]
        small = replace(settings, multistep_coefficients=())  # fitted steps are too few to animate
        moving = trajectory(network, shown, count=min(count, 100), seed=seed, sampling=small)
        scale = max(1, 32 // shape[-1])
        write_animation(
            (grid(encoder.decode(x), columns=columns, scale=scale) for x in moving.x), animate
        )
        print(f"{len(moving)} frames of the first {moving.x.shape[1]} images: {animate}")
