"""`eqm detect fit`, `run` and `eval`: from a folder of good parts to overlays and metrics."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eqm.cli.main import main

SIZE = 12


def part(seed, *, hole=False, width=SIZE, height=SIZE):
    """A grey disc on a dark ground with some noise; with a bright hole, if asked for."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - height / 2, x - width / 2) < min(height, width) / 2.6
    pixels = np.where(disc, 150, 40) + random.normal(0, 8, disc.shape)
    if hole:
        pixels[height // 2 : height // 2 + 3, width // 2 : width // 2 + 3] = 255
    return pixels.clip(0, 255).round().astype(np.uint8)


def save(pixels, path, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with good parts, a set in the layout of MVTec, and a detector in `m`."""
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for k in range(60):
            save(part(k), f"good/{k:03}.png")
        save(part(7), "good/copy.png")
        Path("good/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
        for k in range(8):
            save(part(100 + k), f"set/test/good/{k}.png")
            save(part(200 + k, hole=True), f"set/test/hole/{k}.png")
            truth = np.zeros((SIZE, SIZE), np.uint8)
            truth[6:9, 6:9] = 255
            save(truth, f"set/ground_truth/hole/{k}_mask.png")
        status = main(["detect", "fit", "good", "--output", "m", "--steps", "25"])
    assert status == 1  # one is unreadable
    return folder


@pytest.fixture
def run(world, tmp_path, monkeypatch, capsys):
    """Runs `eqm detect` in a copy of the folder and returns its status, output and errors."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = main(["detect", *(str(argument) for argument in arguments)])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def test_the_report_is_one_page_that_says_what_is_promised(world):
    page = (world / "m" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=(?!\"data:)|url\(|@import|<script", page)
    assert "62 photographs of good parts, 12x12 pixels" in page
    assert "1 of them are copies of others, such as good/copy.png of good/007.png" in page
    assert "1 of them cannot be read and are left out" in page
    assert "19 of 60 good parts are held out" in page
    assert "5 % (used)" in page
    assert "not possible: needs 99 held-out good parts, 19 are there" in page
    assert "prefers-color-scheme: dark" in page
    texts = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]+)"', page)
    assert len(texts) == 12
    assert all(re.match(r"good/\d{3}\.png, a good part in grey: ", text) for text in texts)
    assert "Histogram of 19 held-out scores from" in page
    assert all(name in page for name in ("It has never seen a defect", "eqm detect run m PICTURES"))


def test_what_is_odd_comes_first_with_overlay_and_mask_of_its_own_size(run, tmp_path):
    odd = np.kron(part(300, hole=True), np.ones((4, 3), np.uint8))  # 36x48
    save(odd, "new/deep/odd.png")
    save(part(301), "new/usual.png")
    Path("new/torn.jpg").write_bytes(b"nothing")
    status, out, error = run("run", "m", "new", "--output", "found")
    assert status == 1
    assert "cannot read the picture new/torn.jpg" in error
    assert "pictures are brought to 12x12 pixels, grey, whole" in out
    with Path("found/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["new/deep/odd.png", "new/usual.png", "new/torn.jpg"]
    assert [row["anomalous"] for row in rows] == ["True", "False", ""]
    found = json.loads(Path("found/results.json").read_text())
    assert [row["image"] for row in found["images"]] == [row["image"] for row in rows]
    assert found["images"][0]["p_value"] == pytest.approx(1 / 20)
    with Image.open(Path("found", rows[0]["mask"])) as mask:
        assert (mask.size, mask.mode, set(np.unique(mask))) == ((36, 48), "L", {0, 255})
        assert np.asarray(mask)[24:36, 18:27].mean() > 150
        assert found["images"][0]["anomalous_pixels"] == pytest.approx(np.mean(mask) / 255)
    with Image.open(Path("found", rows[1]["overlay"])) as drawn, Image.open("new/usual.png") as own:
        pixels = np.asarray(drawn)[:SIZE, :SIZE]
        grey = (pixels == pixels[..., :1]).all(2)
        assert grey.mean() > 0.5
        assert (pixels[grey][:, 0] == np.asarray(own)[grey]).all()


def test_pictures_of_any_kind_are_taken(run):
    pixels = part(400)
    save(np.stack([pixels] * 3, 2), "new/colour.png")
    save(pixels.astype(np.uint16) * 257, "new/deep.png")
    save(np.dstack([pixels] * 3 + [np.full_like(pixels, 255)]), "new/clear.png")
    Image.fromarray(pixels).convert("P").save("new/palette.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    tall = part(401, width=18, height=12)
    save(np.rot90(tall), "new/turned.png", exif=turned.tobytes())
    save(tall, "new/upright.png")
    with zipfile.ZipFile("more.zip", "w") as archive:
        archive.write("good/000.png", "a/0.png")
    status, _, error = run("run", "m", "new", "more.zip", "good/00[12].png", "--output", "a.json")
    assert (status, error) == (0, "")
    rows = {row["image"]: row for row in json.loads(Path("a.json").read_text())["images"]}
    assert {"more.zip/a/0.png", "good/001.png", "good/002.png"} < set(rows)
    same = [rows[f"new/{name}.png"]["score"] for name in ("colour", "deep", "clear", "palette")]
    assert same == pytest.approx([same[0]] * 4, rel=1e-3)
    assert rows["new/turned.png"]["score"] == pytest.approx(rows["new/upright.png"]["score"])


def test_metrics_by_kind_are_printed_and_written(run):
    status, out, _ = run("eval", "m", "set", "--output", "metrics.json")
    assert status == 0
    found = json.loads(Path("metrics.json").read_text())
    hole, every = found["kinds"]
    assert (hole["name"], hole["count"], every["name"]) == ("hole", 8, "all")
    assert hole["auroc"]["value"] == every["auroc"]["value"] == 1
    assert hole["average_precision"] == 1
    assert hole["missed"] == 0
    assert 0.95 < hole["pixel_auroc"] <= 1
    assert 0.8 < hole["pro"] <= 1
    assert 0 < hole["f1_used"] <= hole["f1"] <= 1
    assert found["good"] == 8
    low, high = found["interval"]
    assert low <= found["false_alarms"] / 8 <= high
    assert re.search(r"hole +8 +0 +1\.000 \[1\.000, 1\.000\]", out)
    shutil.make_archive("packed", "zip", ".", "set")
    assert run("eval", "m", "packed.zip", "--output", "packed.json")[0] == 0
    assert json.loads(Path("packed.json").read_text())["kinds"] == found["kinds"]
    shutil.rmtree("set/ground_truth")
    assert "there are no masks, so pixels are not measured" in run("eval", "m", "set")[1]


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (
            np.zeros((9, 8), np.uint8),
            "mask set/ground_truth/hole/3_mask.png has 8x9 pixels, and its",
        ),
        (
            np.arange(144, dtype=np.uint8).reshape(12, 12),
            "must be 0 where the part is good and one",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(run, mask, sentence):
    save(mask, "set/ground_truth/hole/3_mask.png")
    status, _, error = run("eval", "m", "set")
    assert status == 2
    assert sentence in error
    assert error.count("\n") == 1


def test_a_detector_saved_in_python_is_told_apart(run):
    Path("m/parts.json").unlink()
    for options in ((), ("--output", "found")):
        status, _, error = run("run", "m", "good/000.png", *options)
        assert (status, error.count("\n")) == (2, 1)
        assert "m has no parts.json, which says how photographs are read" in error


def test_a_server_refuses_a_detector_of_parts_in_one_sentence(run, capsys):
    assert main(["serve", "m", "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "use `eqm detect run m PICTURES`" in error


def test_a_model_may_be_called_run_and_the_old_spelling_goes_on(run):
    save(part(500), "new.png")
    status, out, _ = run("m", "new.png")
    assert (status, "1 pictures in" in out) == (0, True)
    shutil.copytree("m", "run")
    assert run("run", "run", "new.png")[::2] == (0, "")
    status, _, error = run("run", "new.png")
    assert status == 0
    assert (
        "run is read as the model in the folder run, not as a command: write eqm detect-run"
        in error
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("fit", "good/00[0-4].png", "--output", "n"), "needs at least 10 different photographs"),
        (("fit", "good", "--output", "good"), "output must not change what is read"),
        (("fit", "good", "--output", "m"), "output must be a new or an empty folder"),
        (("fit", "good", "--output", "n", "--fpr", 0.01), "needs 198 good parts; got 60"),
        (("fit", "good", "--output", "n", "--fpr", 2), "between 0 and 1; got 2"),
        (("fit", "nowhere/", "--output", "n"), "there is no nowhere/"),
        (
            ("fit", "good", "--output", "n", "--broken", "fail"),
            "cannot read the picture good/torn.png",
        ),
        (("fit", "good/torn.png", "--output", "n"), "none of the photographs can be read"),
        (("run", "m", "good/torn.png"), "none of the 1 photographs can be read"),
        (("run", "m", "good", "--fpr", 0.001), "needs 999 ranked scores"),
        (
            ("run", "m", "good", "--output", "a.txt"),
            "output must end in .csv or .json, or have no ending for a folder",
        ),
        (("run", "m", "good", "--output", "set"), "must be a new or an empty folder"),
        (("run", "m", "good", "--score", "loss"), "--score is for models of other kinds"),
        (("eval", "good", "set"), "must be a folder that `eqm detect fit` wrote"),
        (("eval", "m", "good"), "must have a folder test as MVTec has it; it has none"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, arguments, sentence):
    status, _, error = run(*arguments)
    assert status == 2
    assert sentence in error.splitlines()[-1]
    assert not Path("n").exists()
