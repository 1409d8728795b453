"""How near the samples of `points` are to the knot that the training data are scattered around.

eqm train points --output runs/points
python benchmarks/knot.py runs/points --sheet knot.png
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import tyro
from timing import record
from torch import Tensor

from eqm.data import points
from eqm.drawings import drawn
from eqm.models import from_pretrained
from eqm.pictures import grid
from eqm.tasks import generate


def main(
    model: tyro.conf.Positional[str],
    count: int = 2000,
    sheet: Path | None = None,
    threads: int = 1,
) -> None:
    """Prints the table and writes it to results/.

    Args:
        model: Folder of the model.
        count: Samples, and points of the data.
        sheet: A .png of points of the data and of samples.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    field = from_pretrained(model)
    real, samples = points("trefoil").data[:count], generate(field, count=count).x
    with record("knot", "Points on a knot"):
        print(
            "\nThe distance to the curve; points of the data are scattered around it by .05 along each axis.\n\n"
            "| points | mean distance | further than .2 | evenness |\n|---|---|---|---|"
        )
        for name, where in (("data", real), ("samples", samples)):
            distance, place = nearest(where)
            share = torch.bincount(place // 100, minlength=20).float() / count
            print(
                f"| {name} | {distance.mean():.3f} | {(distance > 0.2).float().mean():.3f} | "
                f"{share.min():.3f} to {share.max():.3f} |"
            )
        print("\nEvenness: the least and the largest share of points in a twentieth of the curve.")
    if sheet is not None:
        grid(torch.cat([drawn(real), drawn(samples)]), columns=2, scale=1).save(sheet)


def nearest(where: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of points (N, 3) to the curve, and the number of the nearest of 2,000 places on it."""
    angle = 2 * math.pi * torch.arange(2000) / 2000
    curve = torch.stack(
        [
            (angle.sin() + 2 * (2 * angle).sin()) / 2,
            (angle.cos() - 2 * (2 * angle).cos()) / 2,
            -(3 * angle).sin() / 2,
        ],
        dim=1,
    )
    found = torch.cdist(where, curve).min(1)
    return found.values, found.indices


if __name__ == "__main__":
    tyro.cli(main)
