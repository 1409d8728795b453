import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import eqm
from eqm import registry
from eqm.cli.main import main
from eqm.cli.options import Sheet
from eqm.cli.output import write_images
from eqm.models import UNet, UNetConfig, save_pretrained

OWN = """
import eqm

@eqm.register("command", "greet")
def greet(name: str, loud: bool = False) -> None:
    \"\"\"Say hello.\"\"\"
    print(f"hello {name.upper() if loud else name}")
"""

NETWORK = """
from __future__ import annotations
from dataclasses import dataclass
import eqm, torch
from eqm.descent import StepResult
from eqm.models import Network, NetworkConfig

@dataclass(frozen=True)
class OneLayerConfig(NetworkConfig):
    width: int = 3

@eqm.register("network", "one-layer")
class OneLayer(Network):
    config: OneLayerConfig

    def __init__(self, config):
        super().__init__(config)
        self.down = torch.nn.Linear(64, config.width)
        self.up = torch.nn.Linear(config.width, 64)

    def forward(self, x, labels=None, gamma=None):
        return self.up(self.down(x.flatten(1))).view_as(x)

@eqm.register("rule", "still")
@dataclass(frozen=True)
class Still:
    step_size: float
    shift: float = 0.0

    def init(self, x):
        return ()

    def step(self, gradient_of, x, state, steps):
        length = torch.full((len(x),), self.step_size)
        return StepResult(torch.full_like(x, self.shift), gradient_of(x), length, ())
"""


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder and returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # the parser's own
            status = stop.code or 0
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def restore_later(monkeypatch, *kinds):
    """Forgets, after the test, the parts of these kinds that it registers."""
    for kind in kinds:
        registry.names(kind)  # registers those of eqm
        monkeypatch.setitem(registry._REGISTERED, kind, dict(registry._REGISTERED[kind]))


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_eqm_alone_shows_examples_and_commands_with_status_0(run):
    status, out, err = run()
    assert (status, err) == (0, "")
    assert out == run("--help")[1]
    examples, commands = out.split("Examples:\n")[1].split("Commands")
    assert examples.count("\n  eqm ") == 5  # and the first
    for name in registry.names("command"):
        assert f"\n  {name.replace('detect-', 'detect ')} " in commands


def test_the_version_is_that_of_the_package(run):
    assert run("--version") == (0, f"eqm {eqm.__version__}\n", "")
    done = python("-m", "eqm", "--version")
    assert (done.returncode, done.stdout) == (0, f"eqm {eqm.__version__}\n")


def test_help_needs_no_torch_and_ends_on_the_narrowest_terminal():
    code = (
        "import sys; from eqm.cli.main import main\n"
        "for words in ([], ['sample', '--help'], ['train', 'digits', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = python("-c", code, COLUMNS="1")
    assert done.returncode == 0, done.stderr
    assert "--step-size FLOAT" in done.stdout
    assert "the value stored with the model" in " ".join(done.stdout.replace("│", " ").split())


def test_what_is_misspelt_is_answered_by_what_was_meant(run):
    assert "did you mean 'sample'?" in run("smaple")[2]
    assert "--guidance" in run("sample", "m", "--guidence", 2)[2]
    status, _, err = run("--labels")
    assert (status, err) == (
        2,
        "eqm: expected a command first; got --labels: `eqm --help` lists the commands\n",
    )


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_command_of_ones_own_is_imported_from_a_file(run, tmp_path, monkeypatch, place):
    restore_later(monkeypatch, "command")
    (tmp_path / "own.py").write_text(OWN)
    words = ["greet", "--name", "ada", "--loud"]
    words[place:place] = ["--import", "own.py"] if place else ["--import=own.py"]
    assert run(*words) == (0, "hello ADA\n", "")
    assert re.search(r"greet +Say hello\.", run()[1])


def test_a_network_and_a_rule_of_ones_own_work_by_name(run, tmp_path, monkeypatch):
    restore_later(monkeypatch, "network", "rule")
    (tmp_path / "parts.py").write_text(NETWORK)
    own = ("--import", "parts.py")
    train = ("train", "digits", "--model", "one-layer", "--images", 128)
    status, out, _ = run(*own, *train, "--model.width", 5)
    assert status == 0
    assert f"{64 * 5 + 5 + 5 * 64 + 64} parameters" in out
    sample = ("sample", "runs/digits", "--count", 2, "--output", "a.npz")
    rule = ("--rule", "still", "--rule-options", "shift", 1)
    assert run(*sample, *rule)[0] == 0
    assert (np.load("a.npz")["arr_0"] == 255).all()
    assert "must be one of" in run(*sample, "--rule", "unknown")[2]
    assert "mlp, one-layer" in run(*train[:2], "--model", "unknown")[2]


def test_what_cannot_be_imported_is_one_sentence(run, tmp_path):
    assert run("--import", "none.py", "info", "m")[0] == 2
    assert "there is no 'none.py'" in run("--import", "none.py", "info", "m")[2]
    for code, kind in [
        ("{}['x']", "KeyError"),
        ("def", "SyntaxError"),
        ("import nowhere", "Module"),
    ]:
        (tmp_path / "own.py").write_text(code)
        status, _, err = run("--import", "own.py", "info", "m")
        assert (status, err.count("\n")) == (2, 1)
        assert f"--import own.py failed, with {kind}" in err
    assert run("info", "m", "--import") == (2, "", "eqm: --import needs a value after it\n")


def test_completion_is_printed_for_every_command(run):
    status, out, _ = run("--tyro-print-completion", "bash")
    assert status == 0
    assert "--mask-is-hole" in out


def test_captions_stand_beside_rows_and_above_columns(tmp_path):
    import torch

    images = torch.ones(4, 1, 8, 8)  # white, so that only captions are dark
    plain, full = tmp_path / "plain.png", tmp_path / "full.png"
    write_images(images, plain, columns=2, sheet=Sheet(scale=7))
    captions = {"rows": ["", "shirt"], "titles": ["given", "a title too long for its column"]}
    write_images(images, full, columns=2, sheet=Sheet(scale=7, captions=True), **captions)
    with Image.open(plain) as a, Image.open(full) as b:
        left, top = b.width - a.width, b.height - a.height
        dark = np.asarray(b.convert("L")) < 128
    assert dark[:top, left:].any()
    assert not dark[top:, left:].any()  # the images are not written on
    middle = top + (b.height - top) // 2
    assert not dark[top:middle, :left].any()
    assert dark[middle:, :left].any()
    with Image.open(plain) as sheet:
        assert sheet.size == (7 * 19, 7 * 19)
    write_images(images, plain, columns=2, sheet=Sheet(scale=2))
    with Image.open(plain) as sheet:
        assert sheet.size == (2 * 19, 2 * 19)


def test_captions_of_samples_are_their_classes(run, tmp_path):
    network = UNet(UNetConfig(shape=(1, 8, 8), num_classes=2, width=4, multipliers=(1,)))
    save_pretrained(network, "m", metadata={"data": {"classes": ["cat", "dog"]}})
    sizes = []
    for more in ([], ["--captions"]):
        assert run("sample", "m", *more)[0] == 0
        with Image.open("samples.png") as sheet:
            sizes.append(sheet.size)
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] == sizes[0][1]


def test_white_is_a_hole_when_the_mask_says_so(run):
    save_pretrained(UNet(UNetConfig(shape=(1, 8, 8), width=4, multipliers=(1,))), "m")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save("known.png")
    Image.fromarray(255 - mask).save("hole.png")
    given = ("restore", "m", "digits:0", "--count", 1, "--steps", 2)
    assert run(*given, "--mask", "known.png", "--output", "a.npz")[0] == 0
    assert run(*given, "--mask", "hole.png", "--mask-is-hole", "--output", "b.npz")[0] == 0
    assert np.array_equal(np.load("a.npz")["arr_0"], np.load("b.npz")["arr_0"])
    status, _, err = run(*given, "--operator", "grey", "--mask-is-hole")
    assert status == 2
    assert "--mask" in err
