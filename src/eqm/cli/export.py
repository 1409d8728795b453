"""`eqm export`: a network or a detector as one file that runs without eqm."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eqm.cli import options
from eqm.registry import register


@register("command", "export")
def export(
    model: options.Model, output: Path, part: Literal["network", "detector"] = "network"
) -> None:
    """Write a network or a detector as one file that runs without eqm.

    Example: `eqm export runs/screw --part detector --output screw.pt2`

    A .pt2 file runs with PyTorch alone, an .onnx file with any ONNX runtime. A network gives the gradient at x.
    A detector gives scores and maps of pictures; beside it a .json holds the threshold and the scores of normal
    pictures. docs/detect.md shows a program of 30 lines that scores a folder.

    Args:
        output: A .pt2 or .onnx file.
        part: What is written: the network, or the detector stored in the folder.
    """
    from eqm.files import check_file
    from eqm.models import from_pretrained
    from eqm.tasks import EqmDetector, export_detector, export_network

    check_file(output)
    if part == "detector":
        export_detector(EqmDetector.load(model), output)
        print(f"wrote {output} and {output.with_suffix('.json')}")
    else:
        export_network(from_pretrained(model), output)
        print(f"wrote {output}")
