"""Settings as an aligned list."""

from __future__ import annotations

from collections.abc import Mapping


def show_settings(settings: Mapping[str, object]) -> None:
    """Prints one setting a line, names to the left."""
    width = max(map(len, settings))
    for name, value in settings.items():
        print(f"{name:<{width}}  {value}")
