"""The style of the figures."""

from __future__ import annotations

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

__all__ = ["BLUE", "GREEN", "GREY", "RED", "save", "show"]

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
