"""`eqm restore`: pictures of which only a part was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eqm.cli.arguments import Model, Pictures


def restore(
    model: Model,
    pictures: Pictures,
    operator: Literal["inpaint", "downsample", "blur", "motion", "grey"] = "inpaint",
    mask: Path | None = None,
    factor: int = 4,
    sigma: float = 1.5,
    length: int = 9,
    angle: float = 0.0,
    noise: float = 0.0,
    count: int = 4,
    steps: int = 25,
    measure: bool = False,
    labels: tuple[str, ...] = (),
    output: Path = Path("restored.png"),
    seed: int = 0,
    guidance: float | None = None,
    resize: bool = False,
    device: str = "auto",
) -> None:
    """Restore pictures: `eqm restore fashion-mnist shoe.png --operator inpaint --mask mask.png`.

    Each row of the sheet is what was given, its samples, and their mean.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32).
        pictures: What is left of them: files, folders, an .npz, a data set by name; `fashion-mnist-test:0-3`
            takes some of what holds many.
        operator: What became of them: inpaint (holes), downsample (means of blocks), blur (a bell),
            motion (a straight move), grey (the mean of the channels).
        mask: For inpaint: a picture, white where a pixel is known and black in the holes.
        factor: For downsample: the side of a block.
        sigma: For blur: the standard deviation of the bell, in pixels.
        length: For motion: in pixels.
        angle: For motion: in degrees from the horizontal.
        noise: Standard deviation of noise in what was given, on the scale -1..1 from black to white.
            Pictures blurred and then rounded to 8 bits have .0023, which blur and motion assume at least.
        count: Samples of each picture.
        steps: Evaluations of the model a sample.
        measure: The pictures are whole: first do to them what `operator` says, to see what comes of it.
        labels: The class of each picture, or one for all, by number or name, if you know it.
        output: A .png for a sheet, a folder for a .png of each sample, called as its picture, or a .npz with
            the samples as `arr_0`, (N * count, H, W, C), uint8.
        seed: Sample k starts from noise of this seed plus k.
        guidance: Classifier-free guidance scale, with labels; by default what is stored with the model.
        resize: Crop and resize pictures that are not of the size they should have.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
    """
    import torch
    from torch.nn import functional

    from eqm.cli.images import labels_of, open_pixel_model, read_images
    from eqm.cli.output import STILL, check_output, file_names, write_images
    from eqm.files import make_folder
    from eqm.sampling import Sampling
    from eqm.tasks import Blur, Downsample, Grey, Inpaint, Operator
    from eqm.tasks import restore as restored

    check_output(output, STILL)
    if (mask is None) is (operator == "inpaint"):
        raise ValueError(
            "--mask, a picture that is white where pixels are known, goes with inpaint"
        )
    network = open_pixel_model(model, device=device, output=output)
    config = network.config
    shape = tuple(config.shape)
    weight = next(network.parameters())
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
        case _:
            wanted = (1, *shape[1:])
            holes, _ = read_images([str(mask)], wanted, resize=resize, taker="a mask has")
            what = Inpaint((holes[0, 0] > 0).to(weight))
    if operator in ("blur", "motion"):
        noise = max(noise, 2 / 255 / 12**0.5)
    whole = torch.zeros(1, *shape, device=weight.device)
    given, names = read_images(pictures, shape if measure else what(whole).shape[1:], resize=resize)
    y = given.to(weight.device)
    if measure or operator == "inpaint":
        y = what(y)
    classes = labels_of(labels, len(y), network)
    make_folder(output.parent)
    descent = restored(
        network,
        y.to(weight),
        what,
        classes,
        noise=noise,
        count=count,
        seed=seed,
        steps=steps,
        sampling=Sampling.of(network.metadata).but(guidance=guidance),
    )
    found = descent.x.float()
    each = found.unflatten(0, (-1, count))
    seen = functional.interpolate(y, shape[1:]).expand(-1, shape[0], -1, -1)
    mean = [each.mean(1, keepdim=True)] if count > 1 else []
    rows = torch.cat([seen[:, None], each, *mean], 1)
    write_images(
        found,
        output,
        columns=rows.shape[1],
        sheet=rows.flatten(0, 1),
        names=file_names(names, each=count),
    )
    misfit = (what(found) - y.repeat_interleave(count, 0)).square().mean().sqrt()
    print(f"{descent}, {steps} evaluations each, misfit {misfit:.2g}: {output}")
