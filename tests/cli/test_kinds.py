"""Training and sampling signals, videos and points from the command line."""

from __future__ import annotations

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
