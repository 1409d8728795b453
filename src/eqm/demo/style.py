"""The style of the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.image import AxesImage
from torch import Tensor

from eqm.files import replacing
from eqm.pictures import grid
from eqm.plots import BLUE, GREEN, GREY, RED, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "GREY", "RED", "save", "show", "strips"]

plt.rcParams.update(STYLE)


def save(figure: Figure, path: Path) -> None:
    """Returns nothing; writes a figure as PNG and closes it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
    plt.close(figure)


def show(axis: Axes, images: Tensor, *, columns: int | None = None) -> AxesImage:
    """The drawing of images (N, 1, H, W) in -1..1 side by side, without axes."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    sheet = np.asarray(grid(images, columns=columns or len(images)))
    return axis.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def strips(
    path: Path,
    columns: Sequence[Mapping[str, Tensor]],
    *,
    height: float,
    titles: Sequence[str] = (),
) -> None:
    """Returns nothing; draws columns of strips of images (N, 1, H, W) with the same names as PNG."""
    names = list(columns[0])
    figure, axes = plt.subplots(
        len(names), len(columns), figsize=(8, height), layout="constrained", squeeze=False
    )
    for down, column in zip(axes.T, columns, strict=True):
        for axis, name in zip(down, names, strict=True):
            show(axis, column[name])
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title)
    save(figure, path)
