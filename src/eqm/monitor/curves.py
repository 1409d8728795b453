"""The log of a run as curves; needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eqm.monitor.log import read_log

Lines = Sequence[Mapping[str, float | None]]
EARLIER = 3
"""Curves of earlier looks that are drawn beside the last, in grey."""


def draw_curves(folder: Path | str, path: Path | str) -> None:
    """Draws the log of the run in `folder` as a PNG at `path`.

    Three panels: the loss over the images seen, in training and held out; the held-out loss by
    gamma; the norm of the gradient on the way from noise to samples. The last two show the last
    look, and some before it in grey.
    """
    from matplotlib.ticker import EngFormatter

    from eqm.plots import BLUE, GREY, RED, drawing

    lines = read_log(folder)
    with drawing(path, panels=3) as (losses, gammas, norms):
        for name, colour, mark in (("loss", BLUE, ""), ("val_loss", RED, ".")):
            points = _series(lines, name)
            if points:
                kind = name.replace("_", " ")
                losses.plot(*zip(*points, strict=True), color=colour, marker=mark, lw=1, label=kind)
        values = [value for _, value in _series(lines, "loss")]
        if values and min(values) > 0:
            losses.set_yscale("log")
        losses.xaxis.set_major_formatter(EngFormatter(sep=""))
        losses.set(xlabel="images seen", title="loss")
        if losses.lines:
            losses.legend()
        for axis, name, below, title in (
            (gammas, "val_loss", "gamma, 0 noise to 1 data", "held-out loss by gamma"),
            (
                norms,
                "descent_gradient_norm",
                "share of the path",
                "gradient norm along the descent",
            ),
        ):
            looks = [(line, row) for line in lines if (row := _row(line, name))]
            for line, row in looks[-EARLIER - 1 :]:
                if line is looks[-1][0]:
                    axis.plot(
                        *zip(*row, strict=True), color=BLUE, label=f"{line['images']:,} images"
                    )
                else:
                    axis.plot(*zip(*row, strict=True), color=GREY, alpha=0.4, lw=1)
            axis.set(xlabel=below, title=title, xlim=(0, 1), ylim=(0, None))
            if looks:
                axis.legend()


class Curves:
    """A tracker that draws the log as `folder`/pictures/curves.png every so many images."""

    def __init__(self, folder: Path | str, *, every: int) -> None:
        self.folder, self.every = Path(folder), every
        self.drawn = self.images = 0

    def start(self, images: int) -> None:
        """Goes on from here."""
        self.drawn = self.images = images

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Draws once a boundary was passed."""
        self.images = images
        if images // self.every > self.drawn // self.every:
            self.finish()

    def picture(self, name: str, path: Path, images: int) -> None:
        """Nothing: curves have none."""

    def finish(self) -> None:
        """Draws what is new."""
        if self.images > self.drawn:
            self.drawn = self.images
            draw_curves(self.folder, self.folder / "pictures" / "curves.png")


def _series(lines: Lines, name: str) -> list[tuple[float, float]]:
    """Images and value of the lines that have the number."""
    return [(line["images"] or 0, value) for line in lines if (value := line.get(name)) is not None]


def _row(line: Mapping[str, float | None], name: str) -> list[tuple[float, float]]:
    """The numbers of a line called `name`/place, by place."""
    places = ((key.removeprefix(f"{name}/"), value) for key, value in line.items() if "/" in key)
    return [(float(p), v) for p, v in places if v is not None and p.replace(".", "").isdigit()]
