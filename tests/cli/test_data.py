import os
import shutil

import numpy as np
import pytest
from PIL import Image

from eqm.cli.main import main


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for kind, size in (("cat", (40, 50)), ("dog", (44, 36))):
        (tmp_path / kind).mkdir()
        for k in range(4):
            pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{k}.jpg")
    return tmp_path


def test_a_check_says_what_there_is_and_names_what_is_broken(photos, capsys):
    (photos / "cat/3.jpg").write_bytes((photos / "cat/3.jpg").read_bytes()[:300])
    assert main(["data", "check", str(photos)]) == 0
    out = capsys.readouterr().out
    shown = dict(line.split(maxsplit=1) for line in out.splitlines()[:8])
    assert shown["readable"] == "7"
    assert shown["sizes"] == "36x44 (4), 50x40 (3)"
    assert shown["channels"] == "3 (7)"
    assert "class cat: 3\nclass dog: 4\nbroken cat/3.jpg: " in out
    assert "sizes differ: set data.size" in out
    assert main(["data", "check", "moons"]) == 0
    assert "class 1: 5,000" in capsys.readouterr().out


def test_names_need_not_be_utf8(photos, capsys):
    kind = (photos / "cat").rename(photos / os.fsdecode(b"caf\xe9"))
    (kind / "0.jpg").rename(kind / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    assert main(["data", "check", str(photos)]) == 0
    out = capsys.readouterr().out
    assert "class caf\\udce9: 3\n" in out
    assert "broken caf\\udce9/\\udcff.jpg: " in out


@pytest.mark.parametrize("content", [None, b"none"])
def test_a_check_of_what_is_of_no_use_has_status_2(tmp_path, capsys, content):
    if content:
        (tmp_path / "a.png").write_bytes(content)
    assert main(["data", "check", str(tmp_path)]) == 2
    sentence = "no picture can be read" if content else "no pictures in"
    assert sentence in capsys.readouterr().err


def test_the_recipe_for_ones_own_pictures_says_what_it_picked(photos, tmp_path, capsys):
    arguments = ["train", "folder", "--data.path", str(photos), "--dry-run"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "8 readable pictures, 2 classes, median shorter side 38 pixels" in out
    words = [line.split(maxsplit=1) for line in out.splitlines()]
    settings = dict(pair for pair in words if len(pair) == 2 and "." in pair[0])
    assert settings["model.shape"] == "[3, 32, 32]"
    assert settings["model.num_classes"] == "2"
    assert settings["data.size"] == "32"
    assert "8 training images, 0 validation images" in out
    assert "the least of this recipe (500 times 8 pictures would be 4,000)" in out
    assert settings["model.multipliers"] == "[1, 2, 4]"
    assert main([*arguments, "--data.size", "16", "--data.no-flip"]) == 0
    out = capsys.readouterr().out
    assert "data.size" not in out.partition("flipped")[0]  # nothing to pick
    assert "data.channels 3\n" in out  # some are grey
    assert "[3, 16, 16]" in out
    assert main([*arguments, "--data.channels", "1"]) == 0
    assert "[1, 32, 32]" in capsys.readouterr().out
    assert main([*arguments, "--data.size", "192", "--images", "64"]) == 0
    out = capsys.readouterr().out
    assert "500 times" not in out
    assert "pictures of 192x192 pixels are learnt faster as latents: `eqm encode" in out
    assert main(["train", "folder"]) == 2
    assert "the recipe folder needs pictures; got no --data.path" in capsys.readouterr().err


def test_one_epoch_of_ones_own_pictures_trains(photos, tmp_path):
    small = ["--model.width", "8", "--model.multipliers", "1", "2", "--batch-size", "4"]
    arguments = ["--data.path", str(photos), "--images", "8", "--precision", "float32"]
    output = tmp_path.parent / f"{tmp_path.name}-run"
    command = [
        "train",
        "folder",
        *arguments,
        *small,
        *("--compile", "off"),
        "--output",
        str(output),
    ]
    assert main(command) == 0
    assert (output / "model.safetensors").exists()


def test_how_data_were_read_is_said_once_by_every_command(photos, tmp_path, capsys):
    data = tmp_path.parent / f"{tmp_path.name}-data"
    for part in ("train", "test"):
        shutil.copytree(photos, data / part)
    run = tmp_path.parent / f"{tmp_path.name}-run"
    denoise = ["denoise", "fashion-mnist", str(data), "--output", str(run / "a.png")]
    train = ["train", "folder", "--data.path", str(data), "--dry-run", "--output", str(run)]
    encode = ["encode", str(data), "--vae", str(run), "--size", "8", "--output", str(run)]
    said = f"note: {data}: the split train is read, 8 pictures; left out: test (8); --split takes others\n"
    main(train)
    assert capsys.readouterr().err.count(said.replace("--", "--data.")) == 1
    for command in (denoise, encode, ["detect", "fashion-mnist", str(data)]):
        main(command)
        assert capsys.readouterr().err.count(said) == 1
    assert main(["data", "check", str(data)]) == 0
    found = capsys.readouterr()
    assert (found.out + found.err).count(said) == 1
    assert main(["data", "check", str(data), "--split", "test", "--no-labels"]) == 0
    out = capsys.readouterr().out
    assert "the split test is read" in out
    assert "class cat" not in out


def test_warnings_of_data_are_printed_as_such_and_only_once(photos, capsys):
    (photos / "cat/0.jpg").write_bytes(b"")
    assert (
        main(["train", "folder", "--data.path", str(photos), "--data.size", "0", "--dry-run"]) == 2
    )
    err = capsys.readouterr().err
    assert err.count("warning: ") == 1
    assert "cannot read 1 of 8 pictures: cat/0.jpg\n" in err


def test_a_check_says_how_an_array_is_read_or_which_option_decides(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 4096, (30, 4, 4, 4)).astype(np.uint16)
    np.save(tmp_path / "a.npy", pixels)
    path = str(tmp_path / "a.npy")
    assert main(["data", "check", path]) == 2
    assert "set --layout" in capsys.readouterr().err
    assert main(["data", "check", path, "--layout", "NHWC"]) == 2
    assert "set --range to both, such as 0 4095" in capsys.readouterr().err
    assert main(["data", "check", path, "--layout", "NHWC", "--range", "0", "4095"]) == 0
    np.save(tmp_path / "b.npy", np.random.default_rng(0).random((40, 30, 20, 3)))
    assert main(["data", "check", str(tmp_path / "b.npy")]) == 0
    out = capsys.readouterr().out
    assert "note: b: axes are read as NHWC (40 pictures of 20x30 pixels and 3 channels)" in out
    assert "note: b: float64 values are read with 0 as black and 1 as white" in out
    assert "crops away up to 34 % of a picture" in out
