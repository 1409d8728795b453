"""The scripts and notebooks in examples/ run."""

import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import matplotlib
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
CLIENTS = sorted(EXAMPLES.glob("serving_*"))
"""These need `eqm serve fashion-mnist`."""
SCORER = EXAMPLES / "score_folder.py"
"""It needs an exported detector."""


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


@pytest.fixture(scope="module")
def server():
    """The address of a server in another process."""
    pytest.importorskip("fastapi")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "eqm", "serve", "fashion-mnist", "--port", str(port)]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                urlopen(f"{address}/health").close()
                break
            except URLError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=[pytest.mark.slow, pytest.mark.needs("ray")])
        if script.stem == "ray_batch"
        else script
        for script in sorted({*EXAMPLES.glob("*.py")} - {*CLIENTS, SCORER})
    ],
    ids=lambda path: path.stem,
)
def test_a_script_runs(script):
    assert len(script.read_text().splitlines()) <= 50, "an example is short"
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("script", CLIENTS, ids=lambda path: path.name)
def test_a_client_runs(script, server, monkeypatch):
    assert len(script.read_text().splitlines()) <= 50, "an example is short"
    if script.suffix == ".sh":
        if not (shutil.which("bash") and shutil.which("curl")):
            pytest.skip("bash or curl is not installed")
        subprocess.run(["bash", script, server], check=True)
    else:
        monkeypatch.setattr(sys, "argv", [str(script), server])
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(notebook):
    namespace = {"__name__": "__main__"}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), notebook.name, "exec"), namespace)


def test_the_calls_of_the_page_about_serving_are_answered(server):
    if not all(map(shutil.which, ("bash", "curl", "jq", "base64"))):
        pytest.skip("bash, curl, jq or base64 is not installed")
    page = (EXAMPLES.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    calls = [code for code in re.findall(r"(?s)```sh\n(.+?)```", page) if "eqm" not in code.split()]
    assert len(calls) > 8
    script = "\n".join(calls).replace("http://127.0.0.1:8000", server)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True)
    for picture in ("coat", "other", "clean", "sharp", "way", "both", "large"):
        assert Path(f"{picture}.png").read_bytes().startswith(b"\x89PNG"), picture


def test_the_scorer_gives_the_scores_of_the_detector(tmp_path):
    import torch
    from PIL import Image

    from eqm.pictures import to_uint8
    from eqm.tasks import export_detector, train_detector

    generator = torch.Generator().manual_seed(0)
    good = (0.3 * torch.randn(60, 1, 16, 16, generator=generator)).clamp(-1, 1)
    detector = train_detector(good, features="pixels", steps=5, fpr=0.1)
    export_detector(detector, tmp_path / "found.pt2")
    (tmp_path / "pictures").mkdir()
    for number, pixels in enumerate(to_uint8(torch.cat([good[:2], -good[:1].sign()]))):
        Image.fromarray(pixels[..., 0]).save(tmp_path / "pictures" / f"{number}.png")
    arguments = [sys.executable, str(SCORER), "found.pt2", "pictures"]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    rounded = torch.tensor(to_uint8(torch.cat([good[:2], -good[:1].sign()])))
    wanted = detector.score_samples(rounded.movedim(3, 1) / 127.5 - 1)
    found = [float(line.split()[2]) for line in said.splitlines()]
    assert found == pytest.approx(wanted.tolist(), rel=2e-3)
    assert [line.split()[-1] for line in said.splitlines()][2] == "anomalous"
