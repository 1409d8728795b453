"""`eqm detect eval`: how well a detector finds known defects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from eqm.cli import options
from eqm.registry import register

if TYPE_CHECKING:
    from eqm.evaluation.report import Table
    from eqm.inspection.evaluating import Evaluation


@register("command", "detect-eval")
def detect_eval(
    model: Annotated[
        Positional[str], arg(metavar="FOLDER", help="A folder that `eqm detect fit` wrote.")
    ],
    data: Annotated[
        Positional[str],
        arg(
            metavar="DATA",
            help="A folder or archive with test/good, test/KIND, and masks in ground_truth/KIND or masks/KIND, "
            "as MVTec has them.",
        ),
    ],
    output: Path | None = None,
    fpr: Annotated[float | None, arg(help_behavior_hint="(default: that of the detector)")] = None,
    reading: options.ReadingOptions = options.AS_FOUND,
    broken: options.Broken = "skip",
) -> int:
    """Measure a detector on parts with known defects, by kind of defect.

    Example: `eqm detect eval runs/screw screws --output screw.json`

    A mask has the name of its picture, or ends in _mask, and is 0 where the part is good. Without masks only
    whole pictures are measured.

    Args:
        output: A .json with all numbers.
        fpr: False-alarm rate: the share of good parts that may be called anomalous.
    """
    from rich.console import Console

    from eqm.cli.detect_parts import open_parts
    from eqm.cli.output import check_output
    from eqm.cli.photographs import open_photographs
    from eqm.files import replacing
    from eqm.inspection.evaluating import evaluate_parts
    from eqm.inspection.layout import tested
    from eqm.schema import json_text

    if output is not None:
        check_output(output, (".json",))
    detector, settings = open_parts(model)
    photographs = open_photographs(
        [data], reading=reading, span=settings.span, split="all", broken=broken
    )
    names = [name.removeprefix(f"{data.rstrip('/')}/") for name in photographs.names]
    pictures = tested(data, names)
    rate = settings.fpr if fpr is None else fpr
    found = evaluate_parts(detector, settings, photographs, pictures, fpr=rate)
    console = Console()
    console.width = max(console.width, 110)  # so that intervals stay in one line
    console.print(_table(found))
    if output is not None:
        with replacing(output) as path:
            path.write_text(json_text(found.as_dict()) + "\n", encoding="utf-8")
        print(f"all numbers: {output}")
    return int(bool(found.unreadable))


def _table(found: Evaluation) -> Table:
    from eqm.evaluation.report import Table

    low, high = found.interval
    numbers = ("pixel_auroc", "pro", "f1", "f1_used")
    rows = []
    for kind in found.kinds:
        own = [getattr(kind, name) for name in numbers]
        rows.append(
            (
                kind.name,
                f"{kind.count:,}",
                f"{kind.missed:,}",
                f"{kind.auroc.value:.3f} [{kind.auroc.low:.3f}, {kind.auroc.high:.3f}]",
                f"{kind.average_precision:.3f}",
                *("-" if value is None else f"{value:.3f}" for value in own),
            )
        )
    header = ("kind", "parts", "missed", "AUROC", "AP", "pixel AUROC", "PRO", "best F1", "F1")
    caption = {
        "false alarms": f"{found.false_alarms} of {found.good} good parts, {found.false_alarms / found.good:.1%}; "
        f"the true rate lies in {low:.1%} to {high:.1%}; asked for {found.fpr:.3g}",
        "missed": "parts with a defect that score below the threshold",
        "[ ]": "95 % bootstrap interval",
        "AP": "average precision of pictures",
        "PRO": "area under the overlap of regions up to 30 % false positives, divided by .3",
        "best F1, F1": "of pixels: at the best threshold, chosen with the masks; at the threshold of the detector",
    }
    notes = []
    if found.stride > 1:
        notes.append(f"metrics of pixels use every {found.stride}. row and column")
    if found.unreadable:
        notes.append(f"{len(found.unreadable)} pictures cannot be read and are left out")
    if all(kind.pixel_auroc is None for kind in found.kinds):
        notes.append("there are no masks, so pixels are not measured")
    return Table(header, rows, caption, notes)
