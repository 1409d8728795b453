import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from eqm.cli.main import main
from eqm.data import digits
from eqm.models import UNet, UNetConfig, save_pretrained


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs `eqm detect` in a folder with the model `m` and returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(UNetConfig(shape=(1, 8, 8), num_classes=0, width=4, multipliers=(1,)))
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    save_pretrained(network, "m")
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(noise).save("noise.png")

    def call(*arguments):
        status = main(["detect", *(str(argument) for argument in arguments)])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def test_pictures_are_told_from_normal_ones_and_the_calibration_is_kept(run, tmp_path):
    given = ("m", "digits:300-339", "noise.png")
    status, out, error = run(
        *given, "--normal", "digits:0-299", "--save", "--output", "a.csv", "--maps", "heat"
    )
    assert (status, error) == (0, "")
    assert "and 21 more" in out
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[0]["image"], rows[-1]["image"]] == ["digits:300", "noise.png"]
    assert rows[-1]["anomalous"] == "True"
    assert float(rows[-1]["p_value"]) == pytest.approx(1 / 151, abs=1e-6)
    assert sum(row["anomalous"] == "True" for row in rows) < 10
    assert len(list((tmp_path / "heat").glob("*.png"))) == 41
    with Image.open("heat/noise.png") as pair:
        assert pair.size == (28 * 19, 28 * 10)

    status, _, _ = run(*given, "--output", "b.json", "--fpr", 0.2)
    found = json.loads((tmp_path / "b.json").read_text())
    assert (status, found["fpr"], found["score"]) == (0, 0.2, "combined")
    assert [row["score"] for row in found["images"]] == pytest.approx(
        [float(row["score"]) for row in rows]
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("m", "noise.png"), "must hold a calibrated detector"),
        (("m", "noise.png", "--save"), "--save stores the calibration by --normal"),
        (("m", "noise.png", "--output", "a.txt"), "output must end in .csv or .json"),
        (
            ("m", "noise.png", "--normal", "digits:0-9"),
            "needs 19 ranked scores, from 38 normal images; got 5 scores",
        ),
        (("m", "noise.png", "--normal", "digits:0-99", "--batch-size", 0), "batch_size must be"),
        (("m", "noise.png", "--normal", "digits:0-2"), "needs at least 4 normal images"),
        (("m", "fashion-mnist-test:0", "--normal", "digits:0-99"), "takes 8x8 pixels"),
        (
            ("m", "noise.png", "--normal", "digits:0-99", "--score", "energy"),
            "an explicit energy, such as DotEnergy; got an implicit field, UNet",
        ),
        (("m", "noise.png", "--normal", "digits:0-99", "--score", "x"), "the score must be one of"),
        (("m", "noise.png", "--normal", "digits:0-99", "--fpr", "2"), "between 0 and 1; got 2"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, arguments, sentence):
    status, _, error = run(*arguments)
    assert status == 2
    assert sentence in error


def test_pictures_whose_names_are_not_utf_8_are_written(run, tmp_path):
    try:
        (tmp_path / "noise.png").rename(tmp_path / "\udcff.png")
    except OSError:
        pytest.skip("this system has UTF-8 names alone")
    given = ("m", "\udcff.png", "--normal", "digits:0-99", "--output", "a.csv")
    assert run(*given)[0] == 0
    assert "\\udcff.png" in (tmp_path / "a.csv").read_text(encoding="utf-8")


def test_pictures_of_two_channels_have_heat_maps_in_grey(run, tmp_path):
    save_pretrained(UNet(UNetConfig(shape=(2, 8, 8), width=4, multipliers=(1,))), "two")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 2, 8, 8), np.uint8)
    np.savez("two.npz", images=pixels)
    given = ("two", "two.npz:0", "--normal", "two.npz", "--fpr", 0.3, "--maps", "heat")
    status, _, error = run(*given)
    assert status == 0
    assert error == "note: two: axes are read as NCHW (8 pictures of 8x8 pixels and 2 channels)\n"
    assert len(list((tmp_path / "heat").glob("*.png"))) == 1


def test_another_score_than_the_stored_one_needs_normal_pictures(run):
    assert run("m", "noise.png", "--normal", "digits:0-99", "--score", "loss", "--save")[0] == 0
    status, _, error = run("m", "noise.png", "--score", "dot", "complexity")
    assert status == 2
    assert "is for the score loss; got dot and complexity: give normal pictures" in error


@pytest.mark.parametrize("upright", [False, True])
def test_what_is_odd_at_the_edge_of_a_long_picture_is_found(run, tmp_path, upright):
    digit = (digits().data[5, 0].numpy() * 127.5 + 127.5).round().astype(np.uint8)
    with Image.open("noise.png") as noise:
        long = np.concatenate([np.asarray(noise), digit, digit, digit], 1)
    Image.fromarray(long.T if upright else long).save("long.png")
    Image.fromarray(np.concatenate([digit] * 4, 1)).save("usual.png")
    given = ("m", "usual.png", "long.png", "--normal", "digits:0-299", "--resize")
    status, _, error = run(*given, "--output", "a.json", "--maps", "heat")
    assert status == 0
    assert "note: 2 of 2 pictures are no squares: each is cut into up to 4 square tiles" in error
    usual, odd = json.loads((tmp_path / "a.json").read_text())["images"]
    assert (usual["anomalous"], odd["anomalous"]) == (False, True)
    assert odd["p_value"] == pytest.approx(
        4 / 151, abs=1e-6
    )  # any of four tiles may be odd by chance
    with Image.open("heat/long.png") as pair:
        sides = (28 * 19, 28 * 34) if upright else (28 * 67, 28 * 10)
        assert pair.size == sides
    assert run("m", "noise.png", "--normal", "digits:0-99", "--save")[0] == 0
    status, _, error = run("m", "long.png", "--resize", "--fpr", 0.03)
    assert (status, "needs" in error) == (2, True)  # 0.03 / 4 needs more normal images


def test_a_crop_that_takes_something_away_is_said(run):
    Image.fromarray(np.zeros((10, 8), np.uint8)).save("tall.png")
    for command in ("denoise", "vary"):
        assert main([command, "m", "tall.png", "--resize", "--output", "out.png"]) == 0
    _, _, error = run("m", "noise.png", "--normal", "digits:0-99")
    assert "crops away up to 20 % of a picture (tall.png has 8x10 pixels)" in error


@pytest.mark.slow
def test_several_processes_find_what_one_finds(run, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k, image in enumerate(digits().data[:7]):
        pixels = ((image[0] + 1) * 127.5).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(pictures / f"{k}.png")
    (pictures / "3.png").write_bytes(b"broken")
    assert run("m", "noise.png", "--normal", "digits:0-299", "--save")[0] == 0
    given = ("m", str(pictures), "digits:300-304", "noise.png")
    assert run(*given, "--output", "one.csv", "--maps", "one")[0] == 1
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "3",
        "--master-port",
        "0",
        "-m",
        "eqm",
        "detect",
    ]
    done = subprocess.run(
        [sys.executable, *command, *given, "--output", "three.csv", "--maps", "three"],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert "of 12 pictures" in done.stdout, done.stderr
    assert "1 cannot be read" in done.stdout
    one, three = ((tmp_path / f"{name}.csv").read_text().splitlines() for name in ("one", "three"))
    assert one == three
    for path in (tmp_path / "one").rglob("*.png"):
        other = tmp_path / "three" / path.relative_to(tmp_path / "one")
        assert other.read_bytes() == path.read_bytes()
