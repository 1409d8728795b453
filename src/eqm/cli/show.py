"""Settings as an aligned list."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def show_settings(settings: Mapping[str, object]) -> None:
    """Prints one setting a line, names to the left."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in settings.items():
        table.add_row(name, str(value))
    Console(highlight=False).print(table)
