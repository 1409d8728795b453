"""The scripts and notebooks in examples/ run."""

import json
import runpy
from pathlib import Path

import matplotlib
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory, plots without a window, and no part registered for other tests."""
    from eqm import registry

    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    yield
    for parts in registry._REGISTERED.values():
        for name in [name for name, part in parts.items() if part.__module__ == "__main__"]:
            del parts[name]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_runs(script):
    assert len(script.read_text().splitlines()) <= 50, "an example is short"
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(notebook):
    namespace = {"__name__": "__main__"}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), notebook.name, "exec"), namespace)
