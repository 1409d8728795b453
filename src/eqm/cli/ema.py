"""`eqm ema`: another average of the weights of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from eqm.registry import register


@register("command", "ema")
def ema(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    sigma_rel: float,
    output: Path,
    images: Annotated[
        int | None, tyro.conf.arg(help_behavior_hint="(default: the last snapshot)")
    ] = None,
) -> None:
    """Make a model from a finished run with another moving average of its weights.

    Example: `eqm ema runs/mine --sigma-rel 0.08 --output mine-0.08`

    The run must have stored snapshots: train with --optimizer.ema-sigma-rel 0.05 0.1.

    Args:
        run: Folder of the run.
        sigma_rel: Relative width of the average: the standard deviation of its weights over time, as a
            share of the images seen.
        output: Folder for the model, new or empty.
        images: Images seen at the end of the average.
    """
    from eqm.files import check_folder, make_folder
    from eqm.models import from_pretrained, save_pretrained
    from eqm.train.ema import fit_snapshots, reconstruct, snapshots

    check_folder(output)
    found = snapshots(run)
    images = found[-1].images if images is None else images
    fit = fit_snapshots(found, sigma_rel, images=images)
    make_folder(output)
    model = from_pretrained(run)
    model.load_state_dict(model.state_dict() | reconstruct(found, sigma_rel, images=images))
    average = {"sigma_rel": sigma_rel, "images": images, "residual": fit.residual}
    save_pretrained(model, output, metadata={**model.metadata, "average": average})
    print(
        f"average of relative width {sigma_rel:g} after {images:,} images from {len(found)} snapshots, "
        f"error of its profile {fit.residual:.2%}: {output}"
    )
