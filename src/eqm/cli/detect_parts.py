"""`eqm detect run` and `eval` with a folder that `eqm detect fit` wrote."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eqm.cli.options import Reading as ReadingChanges

if TYPE_CHECKING:
    from eqm.inspection.judging import Reading
    from eqm.tasks import EqmDetector

PARTS = "parts.json"


def is_of_parts(model: str) -> bool:
    """Whether a folder is one that `eqm detect fit` wrote from pictures."""
    return (Path(model) / PARTS).is_file()


def check_pixels(model: str) -> None:
    """Raises ValueError for a folder with a model of features that `eqm detect fit` did not write."""
    from eqm.models.pretrained import read_config

    if not Path(model).is_dir():
        return
    encoder = (read_config(model)[1].get("data") or {}).get("encoder")
    if isinstance(encoder, Mapping) and "mean" in encoder:  # as features have
        raise ValueError(
            f"{model} has no {PARTS}, which says how photographs are read, as it was made in Python or by `eqm train`: "
            "use EqmDetector.load in Python, or make a detector with `eqm detect fit GOOD --output FOLDER`"
        )


def check_none(model: str, options: Mapping[str, object]) -> None:
    """Raises ValueError where one of these options is given, which are for other models."""
    for name, value in options.items():
        if value:
            raise ValueError(
                f"--{name} is for models of other kinds; {model} was written by `eqm detect fit`: leave it out"
            )


def open_parts(model: str, *, device: str = "cpu") -> tuple[EqmDetector, Reading]:
    """The detector in a folder that `eqm detect fit` wrote, and how it reads photographs."""
    from eqm.devices import pick_device
    from eqm.inspection.judging import Reading
    from eqm.tasks import EqmDetector

    if not is_of_parts(model):
        raise ValueError(
            f"{model} must be a folder that `eqm detect fit` wrote, with {PARTS}: run `eqm detect fit GOOD --output "
            "FOLDER`, and give that folder"
        )
    return EqmDetector.load(model, device=pick_device(device)), Reading.load(Path(model))


def run_parts(
    model: str,
    images: Sequence[str],
    *,
    fpr: float | None,
    output: Path | None,
    draw: Literal["all", "anomalous", "none"],
    reading: ReadingChanges,
    broken: Literal["skip", "fail"],
    device: str,
) -> int:
    """The exit status of `eqm detect run` for a detector of parts."""
    from eqm.cli.output import FOLDER, check_output, ending_of, file_names
    from eqm.cli.photographs import open_photographs
    from eqm.cli.verdicts import print_rows, write_rows
    from eqm.files import new_folder
    from eqm.inspection.finding import find

    began = time.monotonic()
    if output is not None:
        check_output(output, (".csv", ".json", FOLDER))
    detector, settings = open_parts(model, device=device)
    rate = settings.fpr if fpr is None else fpr
    detector = replace(detector, fpr=rate)
    photographs = open_photographs(images, reading=reading, span=settings.span, broken=broken)
    frame = settings.frame
    if any(shape != (frame.channels, frame.height, frame.width) for shape in photographs.shapes):
        print(
            f"pictures are brought to {frame.width}x{frame.height} pixels, "
            f"{'grey' if frame.channels == 1 else 'colour'}, whole; overlays and masks have their own size"
        )
    about = {
        "model": model,
        "fpr": rate,
        "threshold": detector.threshold(),
        "map_threshold": detector.map_threshold(rate),
    }
    if output is not None and ending_of(output) == FOLDER:
        stems = file_names(photographs.names)
        with new_folder(output) as folder:
            rows = find(
                *(detector, settings, photographs), fpr=rate, folder=folder, stems=stems, draw=draw
            )
            for name in ("results.csv", "results.json"):
                write_rows(rows, about, folder / name)
    else:
        rows = find(detector, settings, photographs, fpr=rate)
        if output is not None:
            write_rows(rows, about, output)
    assert detector.calibration is not None  # it was loaded
    print_rows(rows, f"{len(detector.calibration.scores):,} held-out good parts", rate)
    seconds = time.monotonic() - began
    print(f"{len(rows):,} pictures in {seconds:.1f} s" + (f": {output}" if output else ""))
    return int(bool(photographs.unreadable))
