"""Every command that reads data has the options that say how, and names them as they are typed."""

import re

import numpy as np
import pytest
from PIL import Image

from eqm.cli.main import main
from eqm.encoders import Pixels
from eqm.models import UNetConfig, build, save_pretrained

NUMBERS = np.random.default_rng(0)
PIXELS = NUMBERS.integers(0, 256, (24, 4, 4, 4), dtype=np.uint8)


def _pictures(folder, *names):
    for pixels, name in zip(PIXELS, names, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels, "RGBA").save(folder / name)


def _layout(place):
    np.save(place / "x.npy", PIXELS)
    return "x.npy"


def _range(place):
    np.save(place / "x.npy", NUMBERS.integers(0, 4096, (24, 4, 4, 3)).astype(np.uint16))
    return "x.npy"


def _split(place):
    _pictures(place / "x", *(f"{part}/{k}.png" for part in ("test", "val") for k in range(12)))
    return "x"


def _outside(place):
    _pictures(place / "elsewhere", *(f"{k}.png" for k in range(24)))
    (place / "x").mkdir()
    for k in range(24):
        (place / f"x/{k}.png").symlink_to(place / f"elsewhere/{k}.png")
    return "x"


def _labels(place):
    _pictures(place / "x", *(f"{'ab'[k % 2]}/{k}.png" for k in range(23)), "loose.png")
    return "x"


def _labels_from(place):
    names = [f"{'ab'[k % 2]}/{k}.png" for k in range(24)]
    _pictures(place / "x", *names)
    (place / "x/labels.csv").write_text(
        "file,label\n" + "".join(f"{name},{k // 12}\n" for k, name in enumerate(names))
    )
    return "x"


CASES = {
    "layout": (_layout, ["NHWC"]),
    "range": (_range, ["0", "4095"]),
    "split": (_split, ["test"]),
    "outside": (_outside, []),
    "no-labels": (_labels, []),
    "labels-from": (_labels_from, ["folders"]),
}
COMMANDS = {
    "data check {}": "",
    "encode {} --vae pixels --output latents --dry-run": "",
    "train folder --data.path {} --data.size 0 --data.channels 0 --dry-run": "data.",
    "eval {} --reference {} --features pixels --training none": "",
    "tune {m} --data {} --nfe 2 --samples 8 --keep-rule --dry-run --features random": "",
    "denoise {m} {} --output out.npz": None,
    "detect {m} {} --normal {} --score dot --fpr 0.5": None,
    "vary {m} {} --count 1 --output out.npz": None,
    "interpolate {m} {} --count 2 --output out.npz": None,
    "restore {m} {} --operator blur --steps 2 --count 1 --output out.npz": None,
}
"""The commands, and the beginning of their options of data; None where classes are not read."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for channels in (3, 4):
        network = UNetConfig(shape=(channels, 4, 4), num_classes=2, width=4, multipliers=(1,))
        save_pretrained(build(network), folder / str(channels))
    return folder


def _called(capsys, *arguments):
    try:
        status = main([*arguments])
    except SystemExit as end:
        status = end.code
    found = capsys.readouterr()
    return status, found.out + found.err


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_what_a_refusal_names_is_an_option_of_the_command_and_helps(
    models, tmp_path, monkeypatch, capsys, command, case
):
    begins = COMMANDS[command]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eqm.encoders.open_encoder", lambda *_, **__: Pixels())
    make, values = CASES[case]
    made = make(tmp_path)
    words = command.format(*[made] * 2, m=models / ("3" if case == "range" else "4")).split()
    shown = _called(capsys, *words[: 2 if words[0] == "train" else 1], "--help")[1]
    options = set(re.findall(r"^\W*(--[a-z][\w.-]*)", shown, re.MULTILINE))
    option = f"--{begins or ''}{case}"
    if begins is None and "labels" in case:
        assert option not in options
        status, said = _called(capsys, *words)
        assert status == 0, said
        return
    status, said = _called(capsys, *words)
    refusal = said.splitlines()[-1]
    assert (status, refusal[:5]) == (2, "eqm: ")
    assert option in refusal
    assert not re.search(r"(?<![\w-])data\.[a-z_]+", said)
    assert set(re.findall(r"--[a-z][\w.-]*", refusal)) <= options
    status, said = _called(capsys, *words, option, *values)
    assert status == 0, said


def test_masks_are_read_with_the_same_options(models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("mask.npy", np.linspace(0, 3000, 16).reshape(4, 4).astype(np.uint16))
    words = ["compose", f"{models}/4", "m*0", "--masks", "m=mask.npy", "--output", "out.npz"]
    status, said = _called(capsys, *words)
    assert status == 2
    assert "set --range to both, such as 0 4095" in said
    assert _called(capsys, *words, "--range", "0", "3000")[0] == 0


def test_options_of_arrays_leave_other_data_of_the_same_call_alone(
    models, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    _pictures(tmp_path / "x", *(f"{k}.png" for k in range(24)))
    np.save("x.npy", PIXELS)
    words = ["eval", "x.npy", "--reference", "x", "--features", "pixels", "--training", "none"]
    assert _called(capsys, *words, "--layout", "NHWC")[0] == 0
    assert _called(capsys, "vary", f"{models}/4", "x.npy", "x", "--layout", "NHWC")[0] == 0
    status, said = _called(capsys, "data", "check", "x", "--layout", "NHWC")
    assert status == 2
    assert "leave --layout out, which is for arrays" in said
