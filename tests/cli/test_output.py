import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from eqm.cli.main import main
from eqm.cli.output import ANY, STILL, check_output, file_names, write_images
from eqm.files import claim_folder
from eqm.models import UNetConfig, build, save_pretrained

IMAGES = torch.linspace(-1, 1, 2 * 3 * 4 * 5).view(2, 3, 4, 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_holds_each_picture_pixel_by_pixel(tmp_path, channels):
    images = IMAGES[:, :channels]
    write_images(images, tmp_path / "array.npz", columns=1)
    write_images(images, tmp_path / "new", columns=1, names=["a", "b"])
    expected = np.load(tmp_path / "array.npz")["arr_0"]
    for name, pixels in zip("ab", expected, strict=True):
        with Image.open(tmp_path / "new" / f"{name}.png") as picture:
            assert picture.size == (5, 4)
            assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)
    (tmp_path / "an.empty").mkdir()
    write_images(images.split(1), tmp_path / "an.empty", columns=1)
    assert {path.name for path in (tmp_path / "an.empty").iterdir()} == {
        "000000.png",
        "000001.png",
    }


def test_files_that_are_there_are_not_mixed_with_new_ones(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept.png").touch()
    with pytest.raises(ValueError, match="mine has files in it, such as 'kept.png': choose"):
        check_output(tmp_path / "mine", STILL)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a folder; .*file is a file"):
        check_output(tmp_path / "file", STILL)
    with pytest.raises(ValueError, match=r"end in \.png or \.npz, or have no ending for a folder"):
        check_output(tmp_path / "a.jpg", STILL)
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ValueError, match=r"must be a file; .* is a folder"):
        check_output(tmp_path / "b.png", STILL)


def test_a_film_needs_its_writer_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install 'eqm\[video\]'"):
        check_output(tmp_path / "a.mp4", ANY)


def test_results_are_called_as_their_pictures_are():
    assert file_names(["in/a.png", "in/b.c.jpg"]) == ["a", "b.c"]
    assert file_names(["digits:3", "x.npz:12"]) == ["digits-3", "x-12"]
    assert file_names(["a/x.png", "b/x.png"]) == ["a/x", "b/x"]
    assert file_names(["/d/a/x.png", "/d/b/c/x.png"]) == ["a/x", "b/c/x"]
    assert file_names(["in/a.png", "in/A.jpg"]) == ["0000-a", "0001-A"]
    assert file_names(["x.jpg", "x.png/y.jpg"]) == ["0000-x", "x.png/0001-y"]
    assert file_names(["a.png", "b.png"], each=2) == ["a-0", "a-1", "b-0", "b-1"]


PIECES = ["a", "A", ".", "/", "\\", ":", "1", "#", "\n", "\udcff", "é", "b" * 90]


@given(st.lists(st.lists(st.sampled_from(PIECES)).map("".join), min_size=1, max_size=6))
def test_results_of_any_names_are_different_files_below_the_output(names):
    names = [f"{name}x.png" for name in names]
    paths = [Path(f"{path}.png") for path in file_names(names)]
    assert len({str(path).casefold() for path in paths}) == len(names)
    assert not {str(path) for path in paths} & {str(up) for path in paths for up in path.parents}
    for path in paths:
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert all(len(part.encode()) < 255 for part in path.parts)


SHAPE = (1, 8, 8)
METADATA = {"data": {"classes": ["cat", "dog"]}, "training": {"data.path": "pics"}}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a model, pictures in three forms, and links to them."""
    monkeypatch.chdir(tmp_path)
    network = build(UNetConfig(shape=SHAPE, num_classes=2, width=4, multipliers=(1,)))
    save_pretrained(network, "m", metadata=METADATA)
    pixels = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 1), dtype=np.uint8)
    np.savez("in.npz", arr_0=pixels)
    save_pretrained(network, "m2", metadata=METADATA)
    claim_folder("other", "eqm-run")
    Path("pics").mkdir()
    for k, one in enumerate(pixels):
        Image.fromarray(one[:, :, 0]).save(f"pics/{k}.png")
    for name in ("in.png", "mask.png", "target.png"):
        Image.fromarray(pixels[0, :, :, 0]).save(name)
    Path("hard.png").hardlink_to("in.png")
    Path("soft.png").symlink_to("in.png")
    Path("linked").symlink_to("pics")
    Path("twin.png").hardlink_to("pics/3.png")
    Path("pics/z.png").symlink_to("../target.png")
    Path("ro.png").touch(0o444)
    os.mkfifo("pipe.png")
    save_file({"theirs": torch.zeros(1)}, "theirs.safetensors")
    Path("null.png").symlink_to("/dev/null")
    return tmp_path


def state(folder):
    """Everything below a folder: inodes, permissions, and the bytes of files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (about.st_ino, about.st_mode, content)
    return found


@pytest.mark.parametrize(
    "command",
    [
        "denoise m in.npz --output in.npz",
        "denoise m in.npz:0-2 --output ./m/../in.npz",
        "denoise m in.png --output hard.png",
        "denoise m soft.png --output in.png",
        "denoise m in.png --output soft.png",
        "denoise m pics --output pics/out.png",
        "denoise m pics --output pics",
        "denoise m pics --output pics/new",
        "denoise m linked --output pics/out.png",
        "denoise m pics --output linked/out.png",
        "denoise m pics --output target.png",
        "denoise m pics --output twin.png",
        "denoise m pics/1.png --output .",
        "denoise m pics/*.png --output pics/1.png",
        "denoise m {pics,m}/1*.png --output twin.png/../pics/1.png",
        "eval m --output pics/new.json",
        "eval m --reference in.npz --save-reference m/model.safetensors",
        "eval m --reference in.npz --save-reference theirs.safetensors",
        "train folder --data.path pics --data.labels-from labels --output labels",
        "denoise m . --output new.png",
        "vary m in.npz --output in.npz",
        "interpolate m in.npz --output in.npz",
        "restore m in.npz --mask mask.png --output in.npz",
        "restore m in.npz --mask mask.png --output mask.png",
        "compose m cat+dog --models b=m --output m",
        "compose m cat+a*dog --masks a=mask.png --output mask.png",
        "sample m --output m",
        "sample m --output m/best",
        "sample m --output pics",
        "detect m pics --normal in.npz --output m/config.json",
        "detect m pics --normal in.npz --output m/detector.json",
        "detect m in.npz --normal pics --maps pics",
        "detect m in.npz --normal pics --maps pics/maps",
        "detect m in.npz --normal pics --maps m",
        "detect m in.npz --normal pics --maps linked",
        "detect m in.npz --normal in.npz --maps pics",
        "detect m in.npz --normal in.npz --output new.csv --maps new.csv",
        "detect m in.npz --normal in.npz --output new.csv --maps new.csv/maps",
        "detect m in.npz --normal in.npz --output ./m2/config.json",
        "sample m --animate new.gif --output new.gif/x.png",
        "eval in.npz --reference in.npz --output m2/config.json",
        "eval in.npz --reference in.npz --output other/best/new.md",
        "sample m --output other/pictures/new.png",
        "eval pics --reference pics --output pics/new.json",
        "eval m --reference in.npz --output m/config.json",
        "eval m --reference in.npz --output new.json new.json",
        "encode pics --vae m --output pics",
        "encode pics --vae m --output pics/latents",
        "encode in.npz --vae m --output pics",
        "encode in.npz --vae m --output m",
        "ema m --sigma-rel 0.1 --output m",
        "ema m --sigma-rel 0.1 --output pics",
        "train folder --data.path pics --output pics",
        "train folder --data.path pics --output pics/run",
        "train digits --init-from m --output m",
        "train digits --output pics",
        "train digits --output .",
        "train digits --output m",
        "train digits --name ../..",
        "train digits --name /tmp",
        "demo --output pics",
        "demo --output m",
        *(f"{command} --output {path}" for command in ("sample m", "denoise m in.npz")
          for path in ("ro.png", "pipe.png", "null.png", "/dev/null", "/dev/stdout", "in.png/x.png",
                       "a\0b.png", "a\nb.png", "a\nb", "\x1b[1m", "x" * 300 + ".png", "x" * 300)),
        *(f"{command} --output {path}" for command in (
            "train digits", "demo", "encode in.npz --vae m", "ema m --sigma-rel 0.1",
            "detect m in.npz --normal in.npz", "eval m --reference in.npz")
          for path in ("/dev/null", "/dev/stdout", "pipe.png", "a\nb", "a\0b", "x" * 300)),
    ],
)  # fmt: skip
def test_what_is_read_or_of_somebody_else_is_never_written(here, capsys, command):
    before = state(here)
    assert main(command.split(" ")) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("eqm: ")
    assert "unexpected" not in sentence
    assert state(here) == before


@pytest.mark.parametrize(
    "command",
    [
        "sample m --count 2 --output m/new.png",
        "sample m --count 2 --output in.png",  # an output of old, for all that is known
        "sample m --count 2 --output linked/../new.npz",
        "detect m in.npz --normal in.npz --fpr 0.5 --output maps/new.csv",
        "detect m in.npz --normal in.npz --fpr 0.5 --score gradient-norm --save --output new.json",
    ],
)
def test_what_a_command_wrote_it_writes_again(here, command):
    for _ in range(2):
        assert main(command.split()) == 0
    assert not list(here.rglob("*.part"))


def test_an_existing_folder_is_filled(here):
    folder = here / "empty"
    folder.mkdir(mode=0o750)
    before = folder.stat()
    (here / "link").symlink_to("empty")
    assert main(["sample", "m", "--count", "2", "--output", "link"]) == 0
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000001.png"]
    (here / "dangling.png").symlink_to("empty/new.png")
    assert main(["sample", "m", "--count", "2", "--output", "dangling.png"]) == 0
    assert (folder / "new.png").is_file()


@pytest.mark.parametrize(
    "command",
    [
        "sample m --count 64 --output out.png",
        "sample m --count 64 --output out.npz",
        "sample m --count 4 --scale 64 --output out",
        "sample m --count 2 --output out.png --animate out.gif",
        "detect m in.npz --normal in.npz --fpr 0.5 --output out.json --maps out",
        "detect m in.npz --normal in.npz --fpr 0.5 --score gradient-norm --save --output out.csv",
        "eval in.npz --reference in.npz --features pixels --output out.json",
    ],
)
def test_a_limit_of_file_sizes_is_one_sentence_and_leaves_the_old_files(here, capsys, command):
    for name in ("out.png", "out.npz", "out.gif", "out.json", "out.csv"):
        (here / name).write_text("old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = state(here)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, limit[1]))
        status = main(command.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert status == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("eqm: the file-size limit is reached: ")
    after = state(here)
    assert not [name for name in after if name.endswith(".part")]
    assert {name: after[name] for name in before} == before
