"""`eqm detect fit`: from a folder of good parts to a calibrated detector and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from eqm.cli import options
from eqm.registry import register
from eqm.schema import Seed


@register("command", "detect-fit")
def detect_fit(
    good: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="GOOD ...",
            help="Photographs of good parts, of any size: files, folders, archives, or patterns.",
            help_behavior_hint="(one or more)",
        ),
    ],
    output: Path,
    features: str = "auto",
    size: Annotated[
        options.Number | None, arg(help_behavior_hint="(default: chosen from the pictures)")
    ] = None,
    fpr: Annotated[
        float | None,
        arg(help_behavior_hint="(default: 0.05, or the lowest that so many parts can promise)"),
    ] = None,
    steps: Annotated[options.Number | None, arg(help_behavior_hint="(default: chosen)")] = None,
    seed: Seed = 0,
    reading: options.ReadingOptions = options.AS_FOUND,
    broken: options.Broken = "skip",
) -> int:
    """Make a detector of defects from photographs of good parts, with a report.

    Example: `eqm detect fit screws/good --output runs/screw`, then open runs/screw/report.html

    A table is given as a .csv, .tsv or .parquet: its odd rows are found. `eqm detect fit-table --help` says more.

    It needs no defects. A part of the photographs is held out to calibrate the threshold, so that the rate of
    false alarms is known. Then `eqm detect run runs/screw PICTURES` finds what is unlike the good parts.

    Args:
        output: Folder for the detector and report.html, new or empty.
        features: What the detector sees: "pixels"; "lite0", maps of a network of photographs; a folder of a
            transformers model as dinov2:FOLDER; or "auto", which chooses by the size of the pictures.
        size: Side in pixels that photographs are resized to.
        fpr: False-alarm rate: the share of good parts that may be called anomalous.
        steps: Steps of training.
        seed: Seed of the weights, of the parts that are held out, and of the noise.
    """
    from eqm.cli.photographs import open_photographs
    from eqm.files import check_folder
    from eqm.inspection.fitting import fit_parts
    from eqm.inspection.judging import REPORT
    from eqm.tasks.calibration import check_rate

    check_folder(output)
    if fpr is not None:
        check_rate(fpr)
    photographs = open_photographs(good, reading=reading, broken=broken)
    fit_parts(
        photographs,
        output,
        name=good[0] if len(good) == 1 else f"{good[0]} and {len(good) - 1:,} more",
        features=features,
        size=size,
        fpr=fpr,
        steps=steps,
        seed=seed,
        span=dict(reading.changes).get("range", ()),
        say=lambda sentence: print(sentence, flush=True),
    )
    print(f"report: {output / REPORT}")
    print(f"next: eqm detect run {output} PICTURES --output found")
    return int(bool(photographs.unreadable))
