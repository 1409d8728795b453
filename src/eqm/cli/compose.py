"""`eqm compose`: images of several labels, or of several models, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from eqm.cli.arguments import Model


def compose(
    model: Model,
    expression: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="EXPRESSION")],
    models: tuple[str, ...] = (),
    masks: tuple[str, ...] = (),
    count: int = 10,
    output: Path = Path("composition.png"),
    seed: int = 0,
    guidance: float | None = None,
    balance: bool = False,
    vae: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> None:
    """Draw what is several labels at once: `eqm compose fashion-mnist "trouser + 0.5*bag"`.

    An expression is a sum of labels, by number or name, each with its weights before it, joined by `*`;
    a weight is a number, a mask or ~ and a mask, which is the rest of the picture. Negative weights
    lead away; an expression that begins with one needs `--` before it. `none` is the field without
    label; it takes what the other weights leave of 1.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32).
        expression: Such as `7 + 0.5*3 - 1`, or `left*7 + ~left*b:3` with more models and masks.
        models: More models, as NAME=MODEL; their labels are NAME:LABEL, or NAME where they have none.
        masks: Pictures of weights, as NAME=FILE, white 1 and black 0; left, right, top and bottom
            are there.
        count: How many images.
        output: A .png for a sheet, each row of compositions above those of its labels alone, from the
            same noise; a folder for a .png of each composition; or a .npz with them as `arr_0`,
            (N, H, W, C), uint8.
        seed: Image k starts from noise of this seed plus k.
        guidance: What all weights are multiplied with; by default what is stored with the model.
        balance: Bring what the labels add to one norm, so that none drowns another.
        vae: What decodes latents: folder or name on the hub; by default, where training found it.
        batch_size: Images at a time.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
    """
    from functools import partial

    import torch

    from eqm.cli.images import open_model, read_images
    from eqm.cli.output import STILL, check_output, write_images
    from eqm.files import make_folder
    from eqm.models import from_pretrained
    from eqm.sampling import Sampling
    from eqm.tasks import Composition, generate

    check_output(output, STILL)
    network, encoder = open_model(model, vae=vae, device=device, output=output)
    weight = next(network.parameters())
    shape = network.config.shape
    _, height, width = encoder.image_shape_of(shape)
    more = {name: from_pretrained(m, device=weight.device) for name, m in _named(models).items()}
    weights = {}
    for name, path in _named(masks).items():
        mask, _ = read_images([path], (1, height, width), resize=None, taker="a mask has")
        mask = torch.nn.functional.interpolate((mask[:1] + 1) / 2, tuple(shape[1:]), mode="area")
        weights[name] = mask[0, 0].to(weight)
    sampling = Sampling.of(network.metadata).but(guidance=guidance)
    both = Composition.of(
        {"": network, **more}, expression, masks=weights, balance=balance, sampling=sampling
    )
    make_folder(output.parent)
    drawn = partial(generate, count=count, seed=seed, sampling=both.sampling, batch_size=batch_size)
    descent = drawn(both)
    images = encoder.decode(descent.x)
    columns = min(count, 10)
    sheet, rows = images, ""
    if output.suffix == ".png" and len(both.fields) > 1:
        alone = [encoder.decode(drawn(part).x) for part in both.alone()]
        sheets = zip(*(every.split(columns) for every in (images, *alone)), strict=True)
        whole = [part for rows in sheets for part in rows]
        rows = f"; below each row its {len(alone)} labels alone"
        last = torch.full_like(images[:1], 1.0).expand(columns - len(whole[-1]), -1, -1, -1)
        sheet = torch.cat([torch.cat([part, last[: columns - len(part)]]) for part in whole])
    write_images(images, output, columns=columns, sheet=sheet)
    print(f"{descent}, {descent.nfe.float().mean():.0f} steps each: {output}{rows}")


def _named(pairs: tuple[str, ...]) -> dict[str, str]:
    """Values by their names; raises ValueError where one has none."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise ValueError(f"models and masks are given as NAME=PATH; got {pair}")
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}
