import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eqm.cli.output import ANY, STILL, check_output, file_names, write_images

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
