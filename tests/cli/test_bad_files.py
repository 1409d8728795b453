import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eqm.cli.main import main
from eqm.models import UNet, UNetConfig, save_pretrained

HOSTILE = "c\x1b[31m\n.png"


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in a folder with the model `m` and pictures `in`, two of one name and one cut short."""
    monkeypatch.chdir(tmp_path)
    network = UNet(UNetConfig(shape=(1, 8, 8), num_classes=2, width=4, multipliers=(1,)))
    save_pretrained(network, "m", metadata={"sampling": {"step_size": 0.25}})
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    for name, picture in zip(("a/x.png", "b/x.png", f"b/{HOSTILE}"), pixels, strict=True):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(Path("in", name))
    Path("in/a/bad.png").write_bytes(Path("in/a/x.png").read_bytes()[:50])
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save("mask.png")

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def test_each_row_of_a_detection_names_its_picture_and_a_bad_one_says_why(run):
    given = ("detect", "m", "in", "--normal", "digits:0-99", "--score", "loss")
    status, out, err = run(*given, "--output", "a.csv", "--maps", "maps")
    assert status == 1
    assert "warning: cannot read the picture a/bad.png (" in err
    assert "a/bad.png  unreadable" in out
    assert "b/c\\x1b[31m\\n.png" in out
    assert "1 cannot be read" in out
    with Path("a.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"a/x.png", "b/x.png", f"b/{HOSTILE}", "a/bad.png"}
    assert rows["a/bad.png"]["unreadable"]
    assert not rows["a/bad.png"]["score"]
    assert float(rows["a/x.png"]["score"]) != float(rows["b/x.png"]["score"])
    assert not rows["a/x.png"]["unreadable"]
    assert {str(path.relative_to("maps")) for path in Path("maps").rglob("*x.png")} == {
        str(Path("a/x.png")),
        str(Path("b/x.png")),
    }
    printed = [line for line in out.splitlines() if ".png" in line and "unreadable" not in line]
    scores = [float(line.split()[0]) for line in printed]
    assert scores == sorted(scores, reverse=True)  # the worst first

    assert run(*given, "--output", "b.json")[0] == 1
    found = {row["image"]: row for row in json.loads(Path("b.json").read_text())["images"]}
    assert found["a/bad.png"]["score"] is None
    assert found["a/x.png"]["score"] == pytest.approx(float(rows["a/x.png"]["score"]))

    apart = run(*given[:2], "in/a", "in/b", *given[3:], "--output", "c.csv")
    assert apart[0] == 1
    with Path("c.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {f"in/{name}" for name in rows}


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (("denoise", "m", "in", "--labels", 0, 1, 0, 1), ["a/x.png", "b/c*.png", "b/x.png"]),
        (
            ("restore", "m", "in", "--mask", "mask.png", "--count", 1, "--steps", 2),
            ["a/x.png", "b/x.png"],
        ),
        (("vary", "m", "in", "--count", 1), ["a/x.png", "b/x.png"]),
    ],
)
def test_one_bad_file_does_not_end_a_batch(run, command, files):
    status, _, err = run(*command, "--output", "out")
    assert status == 1
    assert err.startswith("warning: cannot read the picture a/bad.png (")
    made = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(made) == 3
    for file in files:
        assert len(list(Path("out").glob(file))) == 1
    status, _, err = run(*command, "--broken", "fail", "--output", "out2")
    assert status == 2
    assert err.startswith("eqm: cannot read the picture a/bad.png (")
    assert not Path("out2").exists()


def test_only_bad_files_and_missing_ones_are_refused(run):
    status, _, err = run("denoise", "m", "in/a/bad.png", "--output", "out")
    assert status == 2
    assert err.startswith("eqm: cannot read the picture in/a/bad.png (")
    assert (
        "none of the 2 pictures can be read"
        in run("denoise", "m", "in/a/bad.png", "in/a/bad.png")[2]
    )
    assert run("denoise", "m", "in/a/x.png", "in/none.png")[0] == 2


def test_a_file_that_cannot_be_opened_is_named_with_the_reason_alone(run):
    Path("in/b/gone.png").symlink_to("none.png")
    Path("in/b/loop.png").symlink_to("loop.png")
    status, _, err = run("denoise", "m", "in", "--output", "out")
    assert status == 1
    assert "cannot read the picture b/gone.png (No such file or directory): " in err
    assert "cannot read the picture b/loop.png (Too many levels of symbolic links): " in err


def test_images_of_a_path_are_named_after_both_pictures(run):
    assert (
        run("interpolate", "m", "in/a/x.png", "in/b/x.png", "--count", 3, "--output", "out")[0] == 0
    )
    assert sorted(path.name for path in Path("out/a").iterdir()) == [
        f"x-to-x-00{k}.png" for k in range(3)
    ]


def test_pictures_that_cannot_be_read_are_left_out_of_an_evaluation(run, monkeypatch):
    for k in range(8):
        Image.fromarray(np.full((8, 8), 30 * k, np.uint8)).save(f"in/b/{k}.png")
    given = ("eval", "in", "--reference", "digits", "--features", "pixels", "--metrics", "frechet")
    status, out, err = run(*given, "--output", "a.json")
    assert status == 1
    assert "in: cannot read a/bad.png (" in err
    assert "unreadable 1, such as a/bad.png" in " ".join(out.split())
    protocol = json.loads(Path("a.json").read_text())["measurements"][0]["protocol"]
    assert protocol["samples"]["count"] == 11
    Path("in/a/bad.png").rename("bad.png")  # the others alone have the same numbers
    status, _, _ = run(*given, "--output", "b.json")
    assert status == 0
    numbers = [json.loads(Path(f"{k}.json").read_text())["measurements"][0]["value"] for k in "ab"]
    assert numbers[0] == numbers[1]
    Path("bad.png").rename("in/a/bad.png")
    assert run(*given, "--broken", "fail")[0] == 2


def test_sets_of_samples_of_one_last_name_are_told_apart(run):
    for folder in ("one/photos", "two/photos"):
        Path(folder).mkdir(parents=True)
        for k in range(6):
            pixels = np.random.default_rng(k + len(folder[:3])).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{k}.png")
    given = ("--reference", "digits", "--features", "pixels", "--metrics", "frechet")
    status, out, _ = run("eval", "one/photos", "--compare", "two/photos", *given)
    assert status == 0
    assert "of one/photos (" in out
    assert "of two/photos (" in out
