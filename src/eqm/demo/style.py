"""How the figures look."""

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#2f5fd0", "#d9480f", "#2b8a3e", "#8a94a6"

plt.rcParams.update(
    {
        "axes.edgecolor": "#c5cad3",
        "axes.grid": True,
        "axes.labelcolor": "#475067",
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.dpi": 110,
        "font.size": 9,
        "grid.color": "#eef0f3",
        "legend.frameon": False,
        "text.color": "#1c2330",
        "xtick.color": "#667085",
        "ytick.color": "#667085",
    }
)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG and forgets it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
    plt.close(figure)


def show(axis: Axes, images: Tensor, *, columns: int | None = None) -> AxesImage:
    """Draws images (N, 1, H, W) in -1..1 side by side, without axes."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    sheet = np.asarray(grid(images, columns=columns or len(images)))
    return axis.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
