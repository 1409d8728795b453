"""Every use of a model of signals, videos or points on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from eqm.cli.main import main
from eqm.models import MLP, MLPConfig, UNet, UNetConfig, save_pretrained

SAMPLING = {"step_size": 0.1, "path_length": 0.4}
MEAN, STD = [500.0, 3.0], [100.0, 0.1]
SMALL = {"num_classes": 3, "width": 4, "multipliers": (1,)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with untrained models of each kind, and data in the units of their training data."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    about = {"mean": MEAN, "std": STD}
    save_pretrained(
        UNet(UNetConfig(shape=(2, 16), **SMALL)),
        "signals",
        metadata={"sampling": SAMPLING, "data": about},
    )
    series = rng.normal(size=(60, 2, 16)) * np.array(STD)[:, None] + np.array(MEAN)[:, None]
    np.savez("signals.npz", data=series.astype(np.float32), labels=np.arange(60) % 3)
    about = {"values": {"kind": "uint8", "range": [0.0, 255.0]}}
    save_pretrained(
        UNet(UNetConfig(shape=(1, 4, 8, 12), **SMALL)),
        "videos",
        metadata={"sampling": SAMPLING, "data": about},
    )
    np.savez("videos.npz", data=rng.integers(90, 166, (60, 4, 8, 12), dtype=np.uint8))
    network = MLP(MLPConfig(shape=(2,), num_classes=3, width=8))
    save_pretrained(network, "points", metadata={"sampling": SAMPLING})
    np.savez("points.npz", data=rng.normal(size=(60, 2)).astype(np.float32))
    return tmp_path


KINDS = {"signals": (2, 16), "videos": (1, 4, 8, 12), "points": (2,)}


def found(name):
    return np.load(name)["arr_0"]


def given(kind):
    return np.load(f"{kind}.npz")["data"].astype(np.float32).reshape(60, *KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_use_gives_samples_in_the_units_of_the_data(kind, folder, capsys):
    rows = f"{kind}.npz:0-2"
    uses = {
        "vary": ([rows, "--count", "2", "--strength", "0"], 6),
        "denoise": ([rows, "--sigma", "0", "--labels", "0", "1", "2"], 3),
        "interpolate": ([rows, "--count", "3", "--strength", "0"], 6),
        "restore": ([rows, "--hole", "1:2", "--count", "2", "--steps", "3"], 6),
        "compose": (["0 + 0.5*2", "--count", "3"], 3),
    }
    for use, (arguments, count) in uses.items():
        assert main([use, kind, *arguments, "--output", f"{use}.npz"]) == 0, use
        assert found(f"{use}.npz").shape == (count, *KINDS[kind]), use
        assert main([use, kind, *arguments, "--output", f"{use}.png"]) == 0, use
        with Image.open(f"{use}.png") as sheet:
            assert sheet.width > 60
        assert main([use, kind, *arguments, "--output", f"{use}s"]) == 0, use
        files = sorted((folder / f"{use}s").rglob("*.npy"))
        assert len(files) == count
    close = {"rtol": 1e-5, "atol": 1e-3}
    # without noise nothing changes, so reading and writing undo each other
    np.testing.assert_allclose(found("vary.npz"), given(kind)[:3].repeat(2, 0), **close)
    # what is known stays
    mask = np.ones(KINDS[kind][1:] or KINDS[kind])
    mask[1:2] = 0
    same = np.broadcast_to(mask > 0, (6, *KINDS[kind]))
    whole = given(kind)[:3].repeat(2, 0)
    np.testing.assert_allclose(found("restore.npz")[same], whole[same], **close)
    assert not np.allclose(found("restore.npz")[~same], whole[~same], rtol=1e-3)
    assert main(["info", kind]) == 0
    assert str(KINDS[kind]) in capsys.readouterr().out


def test_a_mask_is_an_array_and_a_hole_may_reach_to_the_end(folder, capsys):
    mask = np.ones(16, bool)
    mask[10:] = False
    np.save("mask.npy", mask)
    rows = ["signals.npz:3", "--count", "1", "--steps", "3"]
    for k, hole in enumerate((["--mask", "mask.npy"], ["--hole", "10:"], ["--hole=-6:"])):
        assert main(["restore", "signals", *rows, *hole, "--output", f"{k}.npz"]) == 0
        np.testing.assert_array_equal(found(f"{k}.npz"), found("0.npz"))
    np.testing.assert_allclose(found("0.npz")[0, :, :10], given("signals")[3, :, :10], rtol=1e-5)
    np.save("turned.npy", ~mask)
    turned = ["--mask", "turned.npy", "--mask-is-hole", "--output", "t.npz"]
    assert main(["restore", "signals", *rows, *turned]) == 0
    np.testing.assert_array_equal(found("t.npz"), found("0.npz"))


@pytest.mark.parametrize("kind", ["signals", "videos"])
def test_anomalies_have_a_place_in_time(kind, folder, capsys):
    data = np.load(f"{kind}.npz")["data"]
    odd = data[:2].copy()
    if kind == "signals":
        odd[1, :, 12] += np.array([2000.0, 2.0])
    else:
        odd[1, 2] = np.random.default_rng(1).choice([0, 255], (8, 12))
    np.save("odd.npy", odd)
    normal = ["--normal", f"{kind}.npz:2-59", "--fpr", "0.05", "--output", "found.json"]
    assert main(["detect", kind, "odd.npy", *normal, "--maps", "maps"]) == 0
    rows = json.loads((folder / "found.json").read_text())["images"]
    assert rows[1]["anomalous"] or kind == "videos"
    assert rows[1]["score"] > rows[0]["score"]
    strength = np.load("maps/odd-1.npy")
    assert strength.shape == KINDS[kind][1:]
    if kind == "signals":
        assert abs(int(strength.argmax()) - 12) <= 1
    with Image.open("maps/odd-1.png") as picture:
        assert picture.width >= 48


def test_what_does_not_fit_is_one_sentence(folder, capsys):
    np.save("long.npy", np.zeros((3, 2, 17), np.float32))
    np.save("small.npy", np.full((4, 8, 12), 0.5, np.float32))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("a.png")
    np.save("far.npy", np.ones(17, bool))
    cases = [
        (["vary", "signals", "long.npy"], "the model takes samples of shape (2, 16)"),
        (["vary", "videos", "small.npy"], "black at 0 and white at 255: set --range"),
        (["vary", "signals", "a.png"], "is no array: give a .npy or .npz"),
        (["vary", "signals", "none.npy"], "there is no none.npy"),
        (["vary", "points", "signals.npz"], "the model takes samples of shape (2,)"),
        (["vary", "points", "points.npz", "--resize"], "is for models of pictures"),
        (["vary", "points", "points.npz:99"], "holds samples 0 to 59"),
        (["vary", "points", "points.npz", "--output", "x.gif"], "for samples that are no videos"),
        (["restore", "signals", "signals.npz", "--hole", "16:20"], "within 0:16"),
        (["restore", "signals", "signals.npz", "--hole", "a:b"], "must be START:END"),
        (["restore", "signals", "signals.npz"], "takes --mask"),
        (["restore", "signals", "signals.npz", "--operator", "blur"], "is for pictures"),
        (["restore", "signals", "signals.npz", "--mask", "far.npy"], "mask must have shape (16,)"),
        (["restore", "signals", "signals.npz", "--mask", "a.png"], "mask must be a .npy"),
        (["restore", "fashion-mnist", "a.png", "--hole", "1:2"], "--mask MASK.png"),
        (["compose", "signals", "left*0 + 1"], "there is no mask 'left', only first, last"),
        (
            ["detect", "points", "points.npz", "--normal", "points.npz", "--maps", "m"],
            "leave it out",
        ),
    ]
    for arguments, sentence in cases:
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert sentence in error, error
        assert "Traceback" not in error


def test_videos_move_and_black_and_white_may_be_said(folder, capsys):
    assert main(["vary", "videos", "videos.npz:0-1", "--count", "3", "--output", "v.gif"]) == 0
    with Image.open("v.gif") as film:
        assert film.n_frames == 4
    data = np.load("videos.npz")["data"][:1]
    np.save("unit.npy", data / np.float32(255))
    same = ["--strength", "0", "--count", "1", "--output", "u.npz"]
    assert main(["vary", "videos", "unit.npy", "--range", "0", "1", *same]) == 0
    np.testing.assert_allclose(found("u.npz")[:, 0], data, atol=0.01)
    # what a command wrote, another one reads
    assert main(["vary", "videos", "u.npz", *same[:-1], "again.npz"]) == 0
    np.testing.assert_allclose(found("again.npz")[:, 0], data, atol=0.01)
