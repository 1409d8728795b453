"""`eqm compose`: images of several labels, or of several models, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from eqm.cli import options
from eqm.cli.options import STORED, Sheet
from eqm.registry import register


@register("command", "compose")
def compose(
    model: options.Model,
    expression: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="EXPRESSION")],
    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=MODEL ...")] = (),
    masks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FILE ...")] = (),
    count: options.Number = 10,
    output: Annotated[Path, options.Output] = Path("composition.png"),
    seed: options.Seed = 0,
    balance: bool = False,
    vae: options.Vae = None,
    batch_size: options.BatchSize = 256,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    sampling: options.SamplingOptions = STORED,
    reading: options.ReadingOptions = options.AS_FOUND,
    sheet: options.SheetOptions = Sheet(),
) -> None:
    """Draw images that are several classes at once.

    Example: `eqm compose fashion-mnist "trouser + 0.5*bag"`

    An expression is a sum of labels. Each label may have weights before it, joined by `*`: a number, a
    mask, or `~mask` for the area outside the mask. A negative weight leads away from its label. The label
    `none` is the field without a class; it gets what the other weights leave of 1.

    On a sheet, each row of compositions stands above rows of its labels alone, from the same noise.

    Args:
        expression: Such as `7 + 0.5*3 - 1`, or `left*7 + ~left*b:3` with a mask and a second model b.
        models: More models. Their labels are NAME:LABEL, or NAME for a model without classes.
        masks: Pictures of weights, white is 1 and black 0. The masks left, right, top and bottom exist already. For
            signals and videos: a .npy of weights; first and last, the halves of the time, exist already.
        count: Number of images.
        balance: Give the contributions of all labels the same norm.
    """
    from functools import partial

    import torch

    from eqm.cli.images import check_samples, open_model, read_images
    from eqm.cli.output import ANY, check_output, write_results
    from eqm.cli.samples import read_mask
    from eqm.files import make_folder
    from eqm.tasks import Composition, generate
    from eqm.tasks.expressions import parse

    check_output(output, ANY)
    network, encoder = open_model(model, vae=vae, device=device, precision=precision, output=output)
    weight = next(network.parameters())
    shape = network.config.shape
    of_images = len(shape) == 3
    more = {
        name: open_model(other, vae=vae, device=device, precision=precision)[0]
        for name, other in _named(models).items()
    }
    weights = {}
    for name, path in _named(masks).items():
        if not of_images:
            weights[name] = read_mask(Path(path), shape, name=f"the mask {name}").to(weight.device)
            continue
        size = encoder.image_shape_of(shape)[1:]
        mask = read_images(
            [path], (1, *size), resize=None, taker="a mask has", reading=reading
        ).images
        mask = torch.nn.functional.interpolate((mask[:1] + 1) / 2, tuple(shape[1:]), mode="area")
        weights[name] = mask[0, 0].to(weight.device)
    both = Composition.of(
        {"": network, **more},
        expression,
        masks=weights,
        balance=balance,
        sampling=sampling.applied(network),
    )
    check_samples(count, encoder.image_shape_of(shape), sheet.scale)
    make_folder(output.parent)
    drawn = partial(generate, count=count, seed=seed, sampling=both.sampling, batch_size=batch_size)
    solution = drawn(both)
    images = encoder.decode(solution.x)
    columns, rows, titles, below = min(count, 10), images, [expression], ""
    in_plane = tuple(shape) == (2,)  # all points are one picture
    if output.suffix == ".png" and len(both.fields) > 1 and not in_plane:
        alone = [encoder.decode(drawn(part).x) for part in both.alone()]
        terms = (f"{term.model}:{term.label or 'none'}".lstrip(":") for term in parse(expression))
        below = f"; below each row its {len(alone)} labels alone"
        titles = [expression, *dict.fromkeys(terms)]
        blocks = zip(*(every.split(columns) for every in (images, *alone)), strict=True)
        strips = [strip for block in blocks for strip in block]
        blank = torch.full_like(images[:1], float(of_images)).repeat_interleave(columns, 0)
        rows = torch.cat([torch.cat([strip, blank])[:columns] for strip in strips])
    write_results(
        images,
        output,
        columns=columns,
        metadata=network.metadata,
        sheet=sheet,
        shown=rows,
        rows=titles * -(-count // columns),
    )
    print(f"{solution}: {output}{below}")


def _named(pairs: tuple[str, ...]) -> dict[str, str]:
    """Values by their names; raises ValueError for a value without a name."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise ValueError(f"models and masks are given as NAME=PATH; got {pair}")
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}
