import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eqm.cli.images import read_images, tiles_of
from eqm.cli.main import main
from eqm.data import digits
from eqm.models import UNet, UNetConfig, save_pretrained

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


@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_tiles_cover_all_of_a_picture_and_are_as_few_as_possible(height, width):
    side = min(height, width)
    if max(height, width) > 64 * side:
        with pytest.raises(ValueError, match="square tiles: cut it into pieces"):
            tiles_of(height, width)
        return
    covered = np.zeros((height, width), bool)
    for top, left in tiles_of(height, width):
        assert (top >= 0, left >= 0, top + side <= height, left + side <= width) == (True,) * 4
        covered[top : top + side, left : left + side] = True
    assert covered.all()
    assert len(tiles_of(height, width)) == -(-height * width // side**2)


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_tiles_are_squares_of_the_picture_from_edge_to_edge(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 20), dtype=np.uint8)
    path = tmp_path / f"wide.{kind}"
    np.save(path, pixels) if kind == "npy" else Image.fromarray(pixels).save(path)
    found = read_images([path], GREY, resize=True, tiles=True)
    expected = np.stack([pixels[:, at : at + 8] for at in (0, 6, 12)])[:, None] / 127.5 - 1
    torch.testing.assert_close(found.images, torch.from_numpy(expected).float())
    assert (found.counts, found.sizes) == ([3], [(8, 20)])
    cropped = read_images([path], GREY, resize=True)
    torch.testing.assert_close(cropped.images[0], found.images[1])
    assert (cropped.counts, cropped.sizes) == ([1], [(8, 20)])


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8), (1, 8, 8, 1)])
def test_one_picture_may_be_an_array(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "one.npy", pixels)
    found = read_images([tmp_path / "one.npy"], GREY)
    expected = torch.from_numpy(pixels.reshape(1, 1, 8, 8) / 127.5 - 1).float()
    torch.testing.assert_close(found.images, expected)


def test_arrays_are_read_with_the_range_that_the_model_was_trained_on(tmp_path):
    class Model:
        metadata = {"data": {"values": {"kind": "uint16", "range": [0, 4095]}}}

    dark = np.full((8, 8), 7, np.uint16)
    np.save(tmp_path / "dark.npy", dark)
    np.save(tmp_path / "bytes.npy", dark.astype(np.uint8))
    found = read_images([tmp_path / "dark.npy", tmp_path / "bytes.npy"], GREY, model=Model())
    assert found.images[:, 0, 0, 0].tolist() == pytest.approx([14 / 4095 - 1, 14 / 255 - 1])
    with pytest.raises(ValueError, match="not certain which values of these uint16 are black"):
        read_images([tmp_path / "dark.npy"], GREY)
    Model.metadata = {"data": {"values": {"kind": "uint16", "range": [0, "x"]}}}
    with pytest.raises(ValueError, match="do not say how its data were read"):
        read_images([tmp_path / "dark.npy"], GREY, model=Model())


def test_what_is_not_certain_is_decided_by_options(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = UNet(UNetConfig(shape=(4, 4, 4), num_classes=0, width=4, multipliers=(1,)))
    save_pretrained(network, "m")
    np.save("a.npy", np.random.default_rng(0).integers(0, 4096, (5, 4, 4, 4)).astype(np.uint16))
    given = ["denoise", "m", "a.npy", "--output", "out.npz"]
    for options, sentence in [
        ([], "channels): set --layout to the order of its axes"),
        (["--layout", "NHWC"], "set --range to both, such as 0 4095"),
        (["--layout", "NHWC", "--range", "0", "1000"], "values must lie in 0..1000; got"),
        (["--layout", "NHWX", "--range", "0", "4095"], "--layout must name each axis once"),
    ]:
        assert main([*given, *options]) == 2
        assert sentence in capsys.readouterr().err
    assert main([*given, "--layout", "NHWC", "--range", "0", "4095"]) == 0
