"""Settings and fixtures of every test.

Tests see only what `make test` installs. Other packages, data folders and caches of the machine are
hidden. A test that needs one is marked `@pytest.mark.needs("mlxtend")`, by package or by path. It is
skipped, with the reason, where that is missing.
"""

import os
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path

os.environ.update(
    dict.fromkeys(["EQM_DATA", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME"], "/hidden-by-the-tests"),
    EQM_SHARED=os.environ.get("EQM_DATA", "."),
    HF_HUB_OFFLINE="1",
    MPLBACKEND="Agg",
)

import pytest
import torch
from hypothesis import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

torch.set_num_threads(1)

SHARED = [Path(os.environ["EQM_SHARED"]), Path(__file__).parents[2] / "shared" / "data"]
"""Folders where real data may lie that are not in the repository."""

settings.register_profile("eqm", deadline=None, derandomize=True)
settings.load_profile("eqm")


def _hidden_packages() -> set[str]:
    """What can be imported of the optional packages that the extra `dev` leaves out."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        found = [Requirement(line) for line in extras[extra]]
        own = {canonicalize_name(each.name) for each in found if each.name != "eqm"}
        inner = (name for each in found if each.name == "eqm" for name in each.extras)
        return own.union(*map(packages, inner))

    hidden = set()
    for package in set().union(*map(packages, extras)) - packages("dev"):
        with suppress(PackageNotFoundError):
            hidden |= {path.parts[0].removesuffix(".py") for path in files(package) or ()}
    return set(filter(str.isidentifier, hidden))


HIDDEN = _hidden_packages()
sys.modules.update(dict.fromkeys(HIDDEN))  # None: neither found nor imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("needs"):
            for what in mark.args:
                there = Path(what).exists() if "/" in what else what in HIDDEN or find_spec(what)
                if not there:
                    item.add_marker(
                        pytest.mark.skip(reason=f"needs {what}, which make test does not install")
                    )


@pytest.fixture(autouse=True)
def _shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows a test what it is marked to need."""
    for mark in request.node.iter_markers("needs"):
        for what in mark.args:
            if "/" in what:
                monkeypatch.delenv("EQM_DATA")
            else:
                monkeypatch.delitem(sys.modules, what, raising=False)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Gives the path of real data by name; skips the test where they are missing."""

    def found(name: str) -> Path:
        for folder in SHARED:
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"needs {name} in the folder EQM_DATA or in ../shared/data")

    return found


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
