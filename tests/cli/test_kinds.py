"""Training and sampling signals, videos and points from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from eqm.cli.main import main

QUICK = ["--images", "64", "--batch-size", "32", "--eval-every", "0"]


def signals(folder):
    rng = np.random.default_rng(0)
    # columns of other means and deviations
    data = rng.normal(size=(40, 2, 16)) * [[[100.0], [0.1]]] + [[[500.0], [3.0]]]
    np.savez(folder / "data.npz", data=data.astype(np.float32), labels=np.arange(40) % 3)
    return ["--data.layout", "NCL", "--data.standardise"], (2, 16)


def videos(folder):
    data = np.random.default_rng(0).integers(0, 256, (40, 4, 8, 12), dtype=np.uint8)
    np.savez(folder / "data.npz", data=data, labels=np.arange(40) % 3)
    return ["--data.layout", "NTHW"], (1, 4, 8, 12)


def points(folder):
    data = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    np.savez(folder / "data.npz", data=data, labels=np.arange(40) % 3)
    return ["--model", "mlp", "--model.width", "8"], (2,)


@pytest.mark.parametrize("make", [signals, videos, points])
def test_any_kind_is_trained_and_sampled(make, tmp_path, capsys):
    options, shape = make(tmp_path)
    run, data = str(tmp_path / "run"), str(tmp_path / "data.npz")
    assert main(["train", "digits", "--data.path", data, "--output", run, *QUICK, *options]) == 0
    for ending in ("npz", "png", "folder"):
        output = tmp_path / f"samples.{ending}"
        name = str(output).removesuffix(".folder")
        assert main(["sample", run, "--count", "6", "--output", name]) == 0
    array = np.load(tmp_path / "samples.npz")["arr_0"]
    assert array.shape == (6, *shape)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir())[0] == "000000.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "samples" / "000005.npy"), array[5])
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.width > 90
    if make is signals:  # the units are those of the data: means of 500 and 3
        assert np.abs(array[:, 0] - 500).mean() < 400
        assert np.abs(array[:, 1] - 3).max() < 1
    if make is videos:  # 0..255
        assert 60 < array.mean() < 200


def test_only_videos_become_an_animation(tmp_path, capsys):
    for make, status in ((videos, 0), (points, 2)):
        folder = tmp_path / make.__name__
        folder.mkdir()
        options, _ = make(folder)
        run = ["--data.path", str(folder / "data.npz"), "--output", str(folder / "run")]
        assert main(["train", "digits", *run, *QUICK, *options]) == 0
        output = ["--count", "3", "--output", str(folder / "samples.gif")]
        assert main(["sample", str(folder / "run"), *output]) == status
    with Image.open(tmp_path / "videos" / "samples.gif") as film:
        assert film.n_frames == 4
    assert "for samples that are no videos" in capsys.readouterr().err


def test_samples_of_any_kind_are_compared_by_features_of_ones_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "judging.py").write_text(
        "def loudest(x):\n    assert x.shape[1:] == (2, 16), x.shape\n    return x.amax(2)\n"
    )
    options, _ = signals(tmp_path)
    assert (
        main(["train", "digits", "--data.path", "data.npz", "--output", "run", *QUICK, *options])
        == 0
    )
    near = np.load("data.npz")["data"]
    np.savez("far.npz", data=near + np.float32([[[30.0], [0.0]]]))
    measure = [
        "--reference",
        "data.npz",
        "--layout",
        "NCL",
        "--metrics",
        "frechet",
        "--training",
        "none",
    ]
    values = {}
    for name, samples in (
        ("model", ["run", "--count", "40"]),
        ("far", ["far.npz"]),
        ("same", ["data.npz"]),
    ):
        out = ["--features", "judging:loudest", "values", "--output", f"{name}.json"]
        assert main(["eval", *samples, *measure, *out]) == 0, name
        found = json.loads((tmp_path / f"{name}.json").read_text())["measurements"]
        values[name] = {one["protocol"]["features"]["features"]: one["value"] for one in found}
    shift = values["far"]["judging:loudest"]
    assert shift == pytest.approx(30**2, rel=1e-3)  # in the units of the data; equal covariances
    assert values["same"]["judging:loudest"] == pytest.approx(0, abs=1e-3)
    assert values["same"]["values"] < values["model"]["values"]
    capsys.readouterr()
    wrong = {
        "lite0": "take pictures; got samples of shape (2, 16)",
        "judging:quietest": "has no function or class 'quietest'",
        "judgment:loudest": "there is no 'judgment'",
    }
    for name, sentence in wrong.items():
        assert main(["eval", "far.npz", *measure, "--features", name]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["eval", "far.npz", *measure]) == 0
    assert "features: values" in capsys.readouterr().err


def test_points_in_space_are_a_picture_and_turn(tmp_path):
    data = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "data.npy", data)
    run = str(tmp_path / "run")
    small = ["--data.path", str(tmp_path / "data.npy"), "--model.width", "8", "--eval-every", "0"]
    assert main(["train", "points", *small, "--images", "512", "--output", run]) == 0
    for name, frames in (("cloud.png", 1), ("cloud.gif", 60)):
        assert main(["sample", run, "--count", "50", "--output", str(tmp_path / name)]) == 0
        with Image.open(tmp_path / name) as picture:
            assert getattr(picture, "n_frames", 1) == frames
            assert picture.size[0] >= 256
