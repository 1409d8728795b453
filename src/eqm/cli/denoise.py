"""`eqm denoise`: noisy pictures made clean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eqm.cli.arguments import Model, Pictures


def denoise(
    model: Model,
    pictures: Pictures,
    sigma: float | Literal["estimate"] | None = None,
    aim: Literal["sample", "mmse"] = "sample",
    add: float = 0.0,
    labels: tuple[str, ...] = (),
    output: Path = Path("denoised.png"),
    seed: int = 0,
    guidance: float | None = None,
    resize: bool = False,
    device: str = "auto",
) -> None:
    """Make noisy pictures clean: `eqm denoise fashion-mnist noisy.png --sigma estimate`.

    Without --sigma a picture is taken for a mixture gamma * picture + (1 - gamma) * noise of a level that
    nobody knows, as the model was trained on.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32).
        pictures: Files, folders, an .npz, a data set by name; `fashion-mnist-test:0-9` takes some of what
            holds many.
        sigma: Standard deviation of noise that was added to clean pictures, on the scale -1..1 from black
            to white (0.2 is 25.5 of 255), or "estimate" to find it in their finest detail.
        aim: "sample" looks real and makes up what the noise has hidden; "mmse" comes nearest in PSNR and
            is smooth there.
        add: Mix clean pictures with this share of noise first, 0 to 1, to see what comes of it: each row of
            the sheet is then a picture, the same with noise, and what became of it.
        labels: The class of each picture, or one for all, by number or name, if you know it.
        output: A .png for a sheet, a folder for a .png each, called as the picture and of its size, or a
            .npz with the array `arr_0`, (N, H, W, C), uint8.
        seed: Of the noise that is added.
        guidance: Classifier-free guidance scale, with labels; by default what is stored with the model.
        resize: Crop and resize pictures that are not of the model's size.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
    """
    import torch

    from eqm.cli.images import labels_of, open_pixel_model, read_images
    from eqm.cli.output import STILL, check_output, file_names, write_images
    from eqm.corruption import corrupt
    from eqm.files import make_folder
    from eqm.sampling import Sampling, starting_noise
    from eqm.tasks import denoise as cleaned
    from eqm.tasks import estimate_sigma

    check_output(output, STILL)
    if not 0 <= add < 1:
        raise ValueError(f"--add must be a share of noise from 0 and below 1; got {add:g}")
    if add and sigma is not None:
        raise ValueError("--add mixes pictures with noise and needs no --sigma: leave one out")
    network = open_pixel_model(model, device=device, output=output)
    config = network.config
    x, names = read_images(pictures, config.shape, resize=resize)
    x = x.to(next(network.parameters()))
    clean = x
    if add:
        noise = starting_noise(config.shape, seeds=range(seed, seed + len(x))).to(x)
        x = corrupt(x, noise, x.new_full((len(x),), 1 - add))
    deviation: float | torch.Tensor | None = sigma if isinstance(sigma, float) else None
    if sigma == "estimate":
        deviation = estimate_sigma(x)
        print(f"sigma {deviation.mean():.3g} ({deviation.min():.3g} to {deviation.max():.3g})")
    classes = labels_of(labels, len(x), network)
    make_folder(output.parent)
    sampling = Sampling.of(network.metadata).but(guidance=guidance)
    descent = cleaned(network, x, classes, sigma=deviation, aim=aim, sampling=sampling)
    rows = torch.stack([clean, x, descent.x], 1).flatten(0, 1) if add else descent.x
    columns = 3 if add else min(len(x), 10)
    write_images(descent.x, output, columns=columns, sheet=rows, names=file_names(names))
    print(f"{descent}, {descent.nfe.float().mean():.0f} evaluations each: {output}")
