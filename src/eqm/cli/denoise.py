"""`eqm denoise`: noisy pictures made clean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from eqm.cli import options
from eqm.cli.options import STORED, Sheet
from eqm.registry import register


@register("command", "denoise")
def denoise(
    model: options.Model,
    pictures: options.Pictures,
    sigma: Annotated[
        float | Literal["estimate"] | None,
        tyro.conf.arg(help_behavior_hint="(default: any mixture with noise, as in training)"),
    ] = None,
    aim: Literal["sample", "mmse"] = "sample",
    add: float = 0.0,
    labels: options.Labels = (),
    prompt: options.Prompt = (),
    output: Annotated[Path, options.Output] = Path("denoised.png"),
    seed: options.Seed = 0,
    resize: options.Resize = False,
    reading: options.ReadingOptions = options.AS_FOUND,
    broken: options.Broken = "skip",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    sampling: options.SamplingOptions = STORED,
    sheet: options.SheetOptions = Sheet(),
) -> int:
    """Remove noise of known or unknown strength from pictures.

    Example: `eqm denoise fashion-mnist noisy.png --sigma estimate`

    Without --sigma, a picture is taken for a mixture `gamma * picture + (1 - gamma) * noise` with unknown gamma.

    Args:
        sigma: Standard deviation of the noise, on the scale from -1 (black) to 1 (white); 0.2 is 25.5 of
            255. "estimate" measures it in each picture.
        aim: "sample" looks real and invents detail that the noise hid; "mmse" has the best PSNR and is smooth.
        add: Share of noise to mix into clean pictures first, from 0 up to 1, for a test. Each row of the
            sheet is then a picture, the noisy picture and the result.
    """
    import torch

    from eqm.cli.images import conditions_of, input_of, labels_of, open_model, read_images
    from eqm.cli.output import ANY, check_output, file_names, write_results
    from eqm.corruption import corrupt
    from eqm.files import make_folder
    from eqm.sampling import starting_noise
    from eqm.tasks import denoise as cleaned
    from eqm.tasks import estimate_sigma

    check_output(output, ANY)
    if not 0 <= add < 1:
        raise ValueError(f"--add must be a share of noise from 0 up to, but not, 1; got {add:g}")
    if add and sigma is not None:
        raise ValueError("--add mixes in noise itself and takes no --sigma: leave one of them out")
    network, _ = open_model(model, device=device, precision=precision, output=output, latents=False)
    shape = network.config.shape
    given = read_images(
        pictures, shape, resize=resize, broken=broken, model=network, reading=reading
    )
    clean = x = input_of(network, given.images)
    if add:
        noise = starting_noise(shape, seeds=range(seed, seed + len(x))).to(x)
        x = corrupt(x, noise, x.new_full((len(x),), 1 - add))
    deviation: float | torch.Tensor | None = sigma if isinstance(sigma, float) else None
    if sigma == "estimate":
        deviation = estimate_sigma(x)
        print(f"sigma {deviation.mean():.3g} ({deviation.min():.3g} to {deviation.max():.3g})")
    classes = labels_of(given.labels(conditions_of(labels, prompt, network)), len(x), network)
    settings = sampling.applied(network)
    make_folder(output.parent)
    solution = cleaned(network, x, classes, sigma=deviation, aim=aim, sampling=settings)
    write_results(
        solution.x,
        output,
        columns=3 if add else min(len(x), 10),
        metadata=network.metadata,
        sheet=sheet,
        shown=torch.stack([clean, x, solution.x], 1).flatten(0, 1) if add else None,
        rows=given.names if add else (),
        titles=["picture", "noisy", "denoised"] if add else (),
        names=file_names(given.names),
    )
    print(f"{solution}: {output}")
    return given.status
