"""The verdicts of a detector: printed, and as .csv or .json."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from eqm.files import printable

SHOWN = 20
"""Rows of the table that are printed, most anomalous first; --output writes all."""


def print_rows(rows: list[dict[str, Any]], known: str, fpr: float) -> None:
    measured = [row for row in rows if not row["unreadable"]]
    print("   score  p-value  picture")
    for row in sorted(measured, key=lambda row: -row["score"])[:SHOWN]:
        flag = "  anomalous" * row["anomalous"]
        print(f"{row['score']:8.4g}  {row['p_value']:7.4f}  {printable(row['image'])}{flag}")
    if len(measured) > SHOWN:
        print(f"     ... and {len(measured) - SHOWN:,} more: --output FILE.csv writes all")
    unreadable = [row for row in rows if row["unreadable"]]
    for row in unreadable[:SHOWN]:
        print(f"       -        -  {printable(row['image'])}  unreadable")
    count = sum(row["anomalous"] for row in measured)
    print(
        f"{count:,} of {len(measured):,} pictures are anomalous, at a false-positive rate of {fpr:g} ({known})"
        + f"; {len(unreadable):,} cannot be read" * bool(unreadable)
    )


def write_rows(rows: list[dict[str, Any]], about: dict[str, Any], output: Path) -> None:
    from eqm.files import replacing
    from eqm.schema import json_text

    with (
        replacing(output) as path,
        # file names need not be UTF-8
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        if output.suffix == ".csv":
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        else:
            file.write(json_text(about | {"images": rows}) + "\n")
