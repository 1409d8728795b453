"""Scores, overlays and masks of photographs, in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from eqm.files import replacing
from eqm.inspection.judging import Reading, judged
from eqm.inspection.overlays import mask, overlay
from eqm.inspection.photographs import Photographs
from eqm.tasks import EqmDetector

Drawn = Literal["all", "anomalous", "none"]
"""Of which photographs overlays and masks are written."""
COLUMNS = (
    "image",
    "score",
    "p_value",
    "anomalous",
    "anomalous_pixels",
    "overlay",
    "mask",
    "unreadable",
)
"""The columns of results.csv."""


def find(
    detector: EqmDetector,
    reading: Reading,
    photographs: Photographs,
    *,
    fpr: float,
    folder: Path | None = None,
    stems: Sequence[str] = (),
    draw: Drawn = "all",
) -> list[dict[str, Any]]:
    """A row for each photograph with the COLUMNS, the most anomalous first and unreadable ones last.

    Writes overlays/STEM.png and masks/STEM.png below `folder`, if one is given, with a stem of `stems` for each
    photograph. `anomalous_pixels` is the share of pixels above the threshold of the map, 0..1. Raises ValueError
    where the calibration is too small for the rate `fpr`, and as `Photographs.read` does."""
    threshold, level = detector.threshold(fpr), detector.map_threshold(fpr)
    rows: list[dict[str, Any]] = []
    for one in judged(detector, reading.frame, photographs, range(len(photographs))):
        above = one.heat > level
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {
            "image": photographs.names[one.number],
            "score": one.score,
            "p_value": one.p_value,
            "anomalous": one.score > threshold,
            "anomalous_pixels": float(above.float().mean()),
        }
        if folder is not None and draw != "none" and (draw == "all" or row["anomalous"]):
            row["overlay"], row["mask"] = (
                f"{kind}/{stems[one.number]}.png" for kind in ("overlays", "masks")
            )
            for name, picture in (
                ("overlay", overlay(one.photograph, one.heat, level)),
                ("mask", mask(one.heat, level)),
            ):
                with replacing(folder / row[name]) as path:
                    picture.save(path, format="png")
        rows.append(row)
    rows.sort(key=lambda row: -row["score"])
    nothing = dict.fromkeys(("score", "p_value", "anomalous", "anomalous_pixels"))
    return rows + [
        dict.fromkeys(COLUMNS, "") | nothing | {"image": photographs.names[k], "unreadable": why}
        for k, why in sorted(photographs.unreadable.items())
    ]
