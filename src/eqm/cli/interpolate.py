"""`eqm interpolate`: pictures between pictures."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Annotated, Literal

import tyro

from eqm.cli import options
from eqm.cli.options import STORED, Sheet
from eqm.registry import register


@register("command", "interpolate")
def interpolate(
    model: options.Model,
    pictures: options.Pictures,
    labels: Annotated[
        options.Labels, tyro.conf.arg(help="The class of each picture, by number or name.")
    ] = (),
    prompt: options.Prompt = (),
    count: options.Number = 9,
    through: Literal["noise", "landscape"] = "noise",
    strength: options.Share = 0.5,
    output: Path = Path("interpolation.png"),
    seed: options.Seed = 0,
    resize: options.Resize = False,
    reading: options.ReadingOptions = options.AS_FOUND,
    vae: options.Vae = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    sampling: options.SamplingOptions = STORED,
    sheet: options.SheetOptions = Sheet(),
) -> None:
    """Draw a smooth path from each picture to the next.

    Example: `eqm interpolate fashion-mnist a.png b.png --output path.gif`

    Args:
        count: Images of a path, with the two pictures.
        through: "noise" blends the pictures, adds noise and descends. "landscape" moves a chain of blends
            downhill together.
        strength: Share of noise halfway, from 0 to 1.
        output: A .png with a row for each path, a folder for .png files, a .gif or .mp4, or a .npz with the
            array `arr_0` (N, H, W, C), uint8.
    """
    import torch

    from eqm.cli.images import check_samples, conditions_of, open_model, read_images
    from eqm.cli.output import ANY, check_output, file_names, write_results
    from eqm.descent import Outcome
    from eqm.files import make_folder
    from eqm.tasks import interpolate as between

    check_output(output, ANY)
    network, encoder = open_model(
        model, vae=vae, device=device, precision=precision, moving=True, output=output
    )
    given = read_images(
        pictures,
        encoder.image_shape_of(network.config.shape),
        resize=resize,
        model=network,
        reading=reading,
    )
    images, names = given.images, file_names(given.names)
    if len(images) < 2:
        raise ValueError(f"interpolate needs two pictures or more; got {len(images)}")
    labels = tuple(conditions_of(labels, prompt, network))
    if labels and len(labels) != len(images):
        raise ValueError(
            f"labels or prompts must be one for each picture; got {len(labels)} for {len(images)} pictures"
        )
    settings = sampling.applied(network)
    check_samples(len(images) * count, images.shape[1:], sheet.scale)
    make_folder(output.parent)
    latents, _ = encoder.encode(images)
    solutions = [
        between(
            network,
            latents[k],
            latents[k + 1],
            (labels[k], labels[k + 1]) if labels else None,
            count=count,
            through=through,
            strength=strength,
            seed=seed,
            sampling=settings,
        )
        for k in range(len(images) - 1)
    ]
    frames = encoder.decode(torch.cat([solution.x for solution in solutions]))
    write_results(
        frames,
        output,
        columns=count,
        metadata=network.metadata,
        sheet=sheet,
        rows=[f"{a} to {b}" for a, b in pairwise(labels or given.names)],
        names=[
            f"{a}-to-{PurePath(b).name}-{k:03}" for a, b in pairwise(names) for k in range(count)
        ],
    )
    paths = f"{len(solutions)} path{'s' * (len(solutions) > 1)}"
    print(f"{paths} of {count} images through {through}: {output}")
    lost = sum(solution.outcome.count(Outcome.DIVERGED) for solution in solutions)
    if lost:
        why = "the step size of the model is too large, or its weights are damaged"
        print(f"eqm: note: {lost} of {len(frames)} images diverged: {why}", file=sys.stderr)
