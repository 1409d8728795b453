"""`eqm restore`: pictures of which only a part was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from eqm.cli import options
from eqm.cli.options import Sheet
from eqm.registry import register


@register("command", "restore")
def restore(
    model: options.Model,
    pictures: options.Pictures,
    operator: Literal["inpaint", "downsample", "blur", "motion", "grey"] = "inpaint",
    mask: Path | None = None,
    hole: Annotated[tuple[str, ...], tyro.conf.arg(metavar="START:END ...")] = (),
    mask_is_hole: bool = False,
    factor: options.Number = 4,
    sigma: float = 1.5,
    length: options.Number = 9,
    angle: float = 0.0,
    noise: float = 0.0,
    count: options.Count = 4,
    steps: options.Number = 25,
    measure: bool = False,
    labels: options.Labels = (),
    prompt: options.Prompt = (),
    output: Annotated[Path, options.Output] = Path("restored.png"),
    seed: options.Seed = 0,
    guidance: options.Guidance = None,
    resize: options.Resize = False,
    reading: options.ReadingOptions = options.AS_FOUND,
    broken: options.Broken = "skip",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    sheet: options.SheetOptions = Sheet(),
) -> int:
    """Fill holes, sharpen, enlarge or colour pictures; fill holes in signals, videos and points.

    Example: `eqm restore fashion-mnist shoe.png --mask mask.png`

    For a model of series, `--hole 20:30` fills a gap (imputation) and `--hole 80:` continues the series
    (forecasting). For videos these are numbers of frames.

    Each row of a sheet is the given picture, its samples and their mean.

    Args:
        operator: What was done to the pictures: inpaint (holes), downsample (means of blocks), blur
            (Gaussian), motion (a straight move), grey (mean of the channels).
        mask: For inpaint: a picture. By default white pixels are known and black pixels are holes. For signals,
            videos and points: a .npy that is 1 where values are known and 0 in holes.
        hole: For inpaint of signals, videos and points: missing steps of time, or missing values of points, counted
            from 0, without END.
        mask_is_hole: White pixels of the mask are holes and black pixels are known.
        factor: For downsample: the side of a block in pixels.
        sigma: For blur: the standard deviation in pixels.
        length: For motion: the length in pixels.
        angle: For motion: degrees from the horizontal.
        noise: Standard deviation of noise in the given pictures, on the scale from -1 (black) to 1 (white).
            Blur and motion assume at least .0023, the error of rounding to 8 bits.
        steps: Evaluations of the model for a sample.
        measure: The given pictures are whole. First apply the operator to them, for a test.
    """
    import torch
    from torch.nn import functional

    from eqm.cli.images import (
        check_samples,
        conditions_of,
        input_of,
        labels_of,
        open_model,
        read_images,
    )
    from eqm.cli.output import ANY, check_output, file_names, write_results
    from eqm.cli.samples import read_mask, without_holes
    from eqm.files import make_folder
    from eqm.sampling import Sampling
    from eqm.tasks import Blur, Downsample, Grey, Inpaint, Operator
    from eqm.tasks import restore as restored

    check_output(output, ANY)
    if hole and (mask is not None or operator != "inpaint"):
        raise ValueError("--hole is for --operator inpaint, without --mask: leave one of them out")
    if not hole and ((mask is None) is (operator == "inpaint") or (mask_is_hole and mask is None)):
        raise ValueError(
            "--operator inpaint, and no other, takes --mask MASK.png, a picture that is white where pixels are "
            "known (or, with --mask-is-hole, where they are missing)"
        )
    network, _ = open_model(model, device=device, precision=precision, output=output, latents=False)
    shape = tuple(network.config.shape)
    of_images = len(shape) == 3
    if hole and of_images:
        raise ValueError("--hole is for samples with time, and for points: give --mask MASK.png")
    if operator != "inpaint" and not of_images:
        raise ValueError(
            f"--operator {operator} is for pictures; {model} has samples of shape {shape}: take inpaint"
        )
    whole = input_of(network, torch.zeros(1, *shape))
    what: Operator
    match operator:
        case "downsample":
            what = Downsample(factor)
        case "blur":
            what = Blur.gaussian(sigma)
        case "motion":
            what = Blur.motion(length, angle)
        case "grey":
            what = Grey()
        case _ if not of_images:
            known = without_holes(hole, shape) if mask is None else read_mask(mask, shape)
            if not ((known == 0) | (known == 1)).all():
                raise ValueError(
                    f"mask must hold 1 where values are known and 0 elsewhere; {mask} has others"
                )
            what = Inpaint((known.bool() ^ mask_is_hole).to(whole), len(shape))
        case _:
            read = read_images([str(mask)], (1, *shape[1:]), resize=resize, taker="a mask has")
            what = Inpaint(((read.images[0, 0] > 0) ^ mask_is_hole).to(whole))
    if operator in ("blur", "motion"):
        noise = max(noise, 2 / 255 / 12**0.5)
    taken = shape if measure else what(whole.float()).shape[1:]
    given = read_images(
        pictures, taken, resize=resize, broken=broken, model=network, reading=reading
    )
    y = given.images.to(whole.device)
    if measure or operator == "inpaint":
        y = what(y)
    classes = labels_of(given.labels(conditions_of(labels, prompt, network)), len(y), network)
    check_samples(len(y) * count, shape, sheet.scale)
    make_folder(output.parent)
    solution = restored(
        network,
        y.to(whole),
        what,
        classes,
        noise=noise,
        count=count,
        seed=seed,
        steps=steps,
        sampling=Sampling.of(network.metadata).but(guidance=guidance),
    )
    found = solution.x.float()
    each = found.unflatten(0, (-1, count))
    seen = y
    if of_images:
        seen = functional.interpolate(y, shape[1:]).expand(-1, shape[0], -1, -1)
    mean = [each.mean(1, keepdim=True)] if count > 1 else []
    rows = torch.cat([seen[:, None], each, *mean], 1)
    write_results(
        found,
        output,
        columns=rows.shape[1],
        metadata=network.metadata,
        sheet=sheet,
        shown=rows.flatten(0, 1),
        rows=given.names,
        titles=["given", *(f"sample {k + 1}" for k in range(count)), *["mean"] * len(mean)],
        names=file_names(given.names, each=count),
    )
    misfit = (what(found) - y.repeat_interleave(count, 0)).square().mean().sqrt()
    print(f"{solution}; misfit {misfit:.2g}: {output}")
    return given.status
