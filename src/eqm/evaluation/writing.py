"""Reports and comparisons in files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from eqm.evaluation.comparison import Comparison
from eqm.evaluation.report import Report
from eqm.files import replacing


def write(found: Report | Comparison, path: Path | str) -> None:
    """Returns nothing; writes a report to a .json or .md, and the plot of a comparison to a .png too.

    Raises ValueError for another name, and OSError where it cannot be written.
    """
    path = Path(path)
    require_suffix(path, plot=not isinstance(found, Report))
    if path.suffix == ".png" and not isinstance(found, Report):
        return found.plot(path)
    text = str(found) if path.suffix == ".md" else json.dumps(found.plain(), indent=2) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_suffix(path: Path, *, plot: bool) -> None:
    """Returns nothing; raises ValueError unless a report, or a plot too, can be written there."""
    suffixes = (".json", ".md", ".png") if plot else (".json", ".md")
    if path.suffix not in suffixes:
        what = "comparison" if plot else "report"
        raise ValueError(f"a {what} is written as {' or '.join(suffixes)}; got {path}")
    if path.suffix == ".png" and find_spec("matplotlib") is None:
        raise ValueError("a plot needs matplotlib: pip install 'eqm[demo]'")
