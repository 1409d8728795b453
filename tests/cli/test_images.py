import numpy as np
import pytest
import torch
from PIL import Image

from eqm.cli.images import read_images
from eqm.data import digits

GREY = (1, 8, 8)


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for name, picture in zip("abc", pixels, strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    np.savez(tmp_path / "all.npz", images=pixels)
    return tmp_path, torch.from_numpy(pixels)[:, None] / 127.5 - 1


def test_files_folders_arrays_and_data_sets_give_the_same_pictures(folder):
    path, expected = folder
    for paths in ([path / "a.png", path / "b.png", path / "c.png"], [path], [path / "all.npz"]):
        images, names, *_ = read_images(paths, GREY)
        torch.testing.assert_close(images, expected)
        assert len(names) == 3
    some, names, *_ = read_images([path / "c.png", f"{path / 'all.npz'}:0-1", "digits:7"], GREY)
    torch.testing.assert_close(some[:3], expected[[2, 0, 1]])
    torch.testing.assert_close(some[3:], digits().data[7:8])
    assert names[0].endswith("c.png")
    assert names[3] == "digits:7"


def test_pictures_are_resized_only_when_asked(folder):
    path, _ = folder
    with pytest.raises(
        ValueError, match=r"a.png is a picture of 8x8 pixels and 1 channel; .*16x16"
    ):
        read_images([path / "a.png"], (3, 16, 16))
    with pytest.raises(ValueError, match=r"digits holds pictures of 8x8 .* --resize"):
        read_images(["digits"], (1, 4, 4))
    images, *_ = read_images([path / "a.png", "digits:0"], (3, 16, 16), resize=True)
    assert images.shape == (2, 3, 16, 16)
    assert images.abs().max() <= 1


def test_what_cannot_be_read_is_named(folder):
    path, _ = folder
    (path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read the picture .*bad.png \(it is no picture"):
        read_images([path / "bad.png"], GREY)
    with pytest.raises(ValueError, match=r"cannot read the picture none.png \(.*No such file"):
        read_images(["none.png"], GREY)
    with pytest.raises(ValueError, match=r"digits holds pictures 0 to 1796; got 1797-1797"):
        read_images(["digits:1797"], GREY)
    with pytest.raises(ValueError, match="no pictures were given"):
        read_images([], GREY)
    with pytest.raises(
        ValueError, match=r"squares of 1, 3 or 4 channels; the model takes \(1, 8, 6\)"
    ):
        read_images(["digits"], (1, 8, 6), resize=True)
    with pytest.raises(ValueError, match=r"moons holds pictures of shape \(2,\); the model"):
        read_images(["moons"], GREY, resize=True)
