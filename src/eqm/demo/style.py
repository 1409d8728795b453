"""How the figures look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from eqm.files import replacing

if TYPE_CHECKING:
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
