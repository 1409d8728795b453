"""`eqm interpolate` and `eqm vary`: pictures between pictures, and pictures like a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from eqm.cli.arguments import Model, Pictures


def interpolate(
    model: Model,
    pictures: Pictures,
    labels: tuple[str, ...] = (),
    count: int = 9,
    through: Literal["noise", "landscape"] = "noise",
    strength: float = 0.5,
    output: Path = Path("interpolation.png"),
    seed: int = 0,
    guidance: float | None = None,
    resize: bool = False,
    vae: str | None = None,
    device: str = "auto",
) -> None:
    """Draw the way from each picture to the next: `eqm interpolate fashion-mnist a.png b.png`.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32).
        pictures: Two or more: files, folders, an .npz, a data set by name; `fashion-mnist-test:0-3` takes
            some of what holds many.
        labels: The class of each picture, by number or name, if you know it.
        count: Images of one way, the two pictures among them.
        through: "noise" blends, adds noise and descends; "landscape" lets a chain of blends descend
            together, held by springs.
        strength: The share of noise halfway, 0 to 1.
        output: A .png for a strip a way, a folder for a .png each, a .gif or .mp4 that moves, or a .npz with
            the array `arr_0`.
        seed: Of the noise.
        guidance: Classifier-free guidance scale; by default what is stored with the model.
        resize: Crop and resize pictures that are not of the model's size.
        vae: What decodes latents: folder or name on the hub; by default, where training found it.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
    """
    import torch

    from eqm.cli.images import open_model, read_images
    from eqm.cli.output import ANY, check_output, write_images
    from eqm.descent import Outcome
    from eqm.files import make_folder
    from eqm.sampling import Sampling
    from eqm.tasks import interpolate as between

    check_output(output, ANY)
    network, encoder = open_model(model, vae=vae, device=device, output=output)
    images, _ = read_images(pictures, encoder.image_shape_of(network.config.shape), resize=resize)
    if len(images) < 2:
        raise ValueError(f"a way needs two pictures or more; got {len(images)}")
    if labels and len(labels) != len(images):
        raise ValueError(f"labels must be one a picture; got {len(labels)} for {len(images)}")
    make_folder(output.parent)
    latents, _ = encoder.encode(images)
    ends = [
        between(
            network,
            latents[k],
            latents[k + 1],
            (labels[k], labels[k + 1]) if labels else None,
            count=count,
            through=through,
            strength=strength,
            seed=seed,
            sampling=Sampling.of(network.metadata).but(guidance=guidance),
        )
        for k in range(len(images) - 1)
    ]
    frames = encoder.decode(torch.cat([end.x for end in ends]))
    write_images(frames, output, columns=count)
    print(f"{len(ends)} way{'s' * (len(ends) > 1)} of {count} images through {through}: {output}")
    lost = sum(end.outcome.count(Outcome.DIVERGED) for end in ends)
    if lost:
        why = "the step size of the model is too large for it, or its weights are damaged"
        print(f"eqm: note: {lost} of {len(frames)} images diverged: {why}", file=sys.stderr)


def vary(
    model: Model,
    pictures: Pictures,
    labels: tuple[str, ...] = (),
    strength: float = 0.5,
    count: int = 8,
    output: Path = Path("variations.png"),
    seed: int = 0,
    guidance: float | None = None,
    resize: bool = False,
    vae: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> None:
    """Draw variations of pictures: `eqm vary fashion-mnist a.png --strength 0.6`.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32).
        pictures: Files, folders, an .npz, a data set by name; `fashion-mnist-test:0-3` takes some of what
            holds many.
        labels: The class of each picture, by number or name, if you know it.
        strength: How far they go: 0 is the picture, 1 any other sample.
        count: Variations of each picture.
        output: A .png for a sheet, each row a picture and then its variations; a folder for a .png of each
            variation, called as its picture; or a .npz with the variations as `arr_0`, (N, H, W, C), uint8.
        seed: Row k of all variations has noise of this seed plus k.
        guidance: Classifier-free guidance scale; by default what is stored with the model.
        resize: Crop and resize pictures that are not of the model's size.
        vae: What decodes latents: folder or name on the hub; by default, where training found it.
        batch_size: Images at a time.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
    """
    import torch

    from eqm.cli.images import open_model, read_images
    from eqm.cli.output import STILL, check_output, file_names, write_images
    from eqm.files import make_folder
    from eqm.sampling import Sampling
    from eqm.tasks import vary as varied

    check_output(output, STILL)
    network, encoder = open_model(model, vae=vae, device=device, output=output)
    images, names = read_images(
        pictures, encoder.image_shape_of(network.config.shape), resize=resize
    )
    make_folder(output.parent)
    latents, _ = encoder.encode(images)
    descent = varied(
        network,
        latents,
        labels or None,
        strength=strength,
        count=count,
        seed=seed,
        sampling=Sampling.of(network.metadata).but(guidance=guidance),
        batch_size=batch_size,
    )
    found = encoder.decode(descent.x)
    rows = torch.cat([images[:, None].to(found), found.unflatten(0, (len(images), count))], dim=1)
    write_images(
        found,
        output,
        columns=count + 1,
        sheet=rows.flatten(0, 1),
        names=file_names(names, each=count),
    )
    print(f"{descent}: {output}")
