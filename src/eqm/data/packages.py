"""Data that Python packages carry."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from eqm.data.source import MissingDataError


def package_folder(name: str, data: str) -> Path:
    """The folder of the installed package `name`, which is not imported.

    Raises MissingDataError, naming the `data` that need it, where it is not installed.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        package = name.replace("_", "-")
        raise MissingDataError(f"{data} needs the package {package}: pip install 'eqm[data]'")
    return Path(spec.origin).parent
