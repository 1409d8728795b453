"""The style of figures; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eqm.files import replacing

BLUE, RED, GREEN, GREY = "#2f5fd0", "#d9480f", "#2b8a3e", "#8a94a6"

STYLE: dict[Any, Any] = {
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
"""Settings of matplotlib."""


@contextmanager
def drawing(path: Path | str, *, panels: int = 1) -> Iterator[list[Axes]]:
    """Axes side by side to draw in; the figure is saved as a PNG at `path` when the block ends.

    Other figures and the backend of the process are not changed.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(3.4 * panels, 2.9), layout="constrained")
        FigureCanvasAgg(figure)
        yield list(figure.subplots(1, panels, squeeze=False)[0])
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
