"""`eqm vary`: pictures like a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eqm.cli import options
from eqm.cli.options import STORED, Sheet
from eqm.registry import register


@register("command", "vary")
def vary(
    model: options.Model,
    pictures: options.Pictures,
    labels: options.Labels = (),
    prompt: options.Prompt = (),
    strength: options.Share = 0.5,
    count: options.Count = 8,
    output: Annotated[Path, options.Output] = Path("variations.png"),
    seed: options.Seed = 0,
    resize: options.Resize = False,
    reading: options.ReadingOptions = options.AS_FOUND,
    broken: options.Broken = "skip",
    vae: options.Vae = None,
    batch_size: options.BatchSize = 256,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    sampling: options.SamplingOptions = STORED,
    sheet: options.SheetOptions = Sheet(),
) -> int:
    """Draw variations of pictures.

    Example: `eqm vary fashion-mnist shoe.png --strength 0.6`

    Each row of a sheet is a picture and its variations.

    Args:
        strength: How different the variations are: 0 gives the picture back, 1 any other sample.
    """
    import torch

    from eqm.cli.images import check_samples, conditions_of, open_model, read_images
    from eqm.cli.output import ANY, check_output, file_names, write_results
    from eqm.files import make_folder
    from eqm.tasks import vary as varied

    check_output(output, ANY)
    network, encoder = open_model(model, vae=vae, device=device, precision=precision, output=output)
    given = read_images(
        pictures,
        encoder.image_shape_of(network.config.shape),
        resize=resize,
        broken=broken,
        model=network,
        reading=reading,
    )
    images = given.images
    settings = sampling.applied(network)
    check_samples(len(images) * count, images.shape[1:], sheet.scale)
    make_folder(output.parent)
    latents, _ = encoder.encode(images)
    solution = varied(
        network,
        latents,
        given.labels(conditions_of(labels, prompt, network)) or None,
        strength=strength,
        count=count,
        seed=seed,
        sampling=settings,
        batch_size=batch_size,
    )
    found = encoder.decode(solution.x)
    each = found.unflatten(0, (len(images), count))
    write_results(
        found,
        output,
        columns=count + 1,
        metadata=network.metadata,
        sheet=sheet,
        shown=torch.cat([images[:, None].to(found), each], dim=1).flatten(0, 1),
        rows=given.names,
        titles=["picture", *(f"{k + 1}" for k in range(count))],
        names=file_names(given.names, each=count),
    )
    print(f"{solution}: {output}")
    return given.status
