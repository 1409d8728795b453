"""`eqm ema`: another average of the weights of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def ema(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    sigma_rel: float,
    output: Path,
    images: int | None = None,
) -> None:
    """Make a model of another average of its weights from the snapshots of a run.

    The run must have kept averages, by --optimizer.ema-widths 0.05 0.1.

    Args:
        run: Folder of the run.
        sigma_rel: Relative width of the average, the standard deviation of its profile as a share of the images seen.
        output: Folder for the model, which must not hold one.
        images: Images seen at the end of the average; all that the last snapshot saw by default.
    """
    from eqm.files import make_folder
    from eqm.models import from_pretrained, save_pretrained
    from eqm.train.ema import fit_snapshots, reconstruct, snapshots

    if (output / "config.json").exists():
        raise ValueError(f"{output} holds a model already: choose another folder for output")
    found = snapshots(run)
    images = found[-1].images if images is None else images
    fit = fit_snapshots(found, sigma_rel, images=images)
    make_folder(output)
    model = from_pretrained(run)
    model.load_state_dict(model.state_dict() | reconstruct(found, sigma_rel, images=images))
    average = {"sigma_rel": sigma_rel, "images": images, "residual": fit.residual}
    save_pretrained(model, output, metadata={**model.metadata, "average": average})
    print(
        f"the average of width {sigma_rel:g} after {images:,} images, from {len(found)} snapshots, "
        f"is in {output}; its profile is met but for {fit.residual:.2%}"
    )
