from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eqm.cli.main import main
from eqm.data import digits
from eqm.models import UNet, UNetConfig, from_pretrained, save_pretrained


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in a folder with the model `m` and returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    network = UNet(UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1,)))
    save_pretrained(network, "m", metadata={"sampling": {"step_size": 0.1}})
    mask = np.full((8, 8), 255, np.uint8)
    mask[:, 4:] = 0
    Image.fromarray(mask).save("mask.png")

    def call(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # the parser's own
            status = stop.code
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def read(name):
    return torch.from_numpy(np.load(name)["arr_0"])[..., 0]


def test_pictures_are_denoised(run):
    status, out, _ = run("denoise", "m", "digits:0-3", "--add", 0.5, "--labels", 0, 1, 2, 3)
    assert status == 0
    assert "Solution of 4: 4 converged" in out
    with Image.open("denoised.png") as sheet:
        assert sheet.size[1] > sheet.size[0]  # a row a picture: as it was, noisy, denoised
    status, out, _ = run(
        *("denoise", "m", "digits:0", "--sigma", "estimate", "--aim", "mmse"),
        *("--output", "a.npz"),
    )
    assert status == 0
    assert out.startswith("sigma ")
    assert "NFE 1: a.npz" in out
    assert (
        run("denoise", "m", "digits:0", "--sigma", 0, "--aim", "mmse", "--output", "b.npz")[0] == 0
    )
    given = ("digits:3", "digits:5", "--add", 0.5)
    assert run("denoise", "m", *given, "--output", "each")[0] == 0
    assert {path.name for path in Path("each").iterdir()} == {"digits-3.png", "digits-5.png"}
    assert run("denoise", "m", *given, "--output", "c.npz")[0] == 0
    for name, pixels in zip(("digits-3", "digits-5"), read("c.npz"), strict=True):
        with Image.open(f"each/{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), pixels)
    whole = read("b.npz")  # no noise, nothing to do
    expected = ((digits().data[0, 0] + 1) * 127.5).round()
    assert (whole[0] - expected).abs().max() <= 2


def test_what_is_known_stays(run):
    given = ("restore", "m", "digits:0-1", "--count", 2, "--steps", 3, "--measure")
    assert run(*given, "--mask", "mask.png", "--output", "a.npz")[0] == 0
    found = read("a.npz").float()
    known = ((digits().data[:2, 0, :, :4] + 1) * 127.5).repeat_interleave(2, 0)
    assert found.shape == (4, 8, 8)
    assert (found[..., :4] - known).abs().max() <= 1
    status, out, _ = run(*given, "--operator", "downsample", "--factor", 2)
    assert status == 0
    assert "misfit" in out
    with Image.open("restored.png") as sheet:  # given, two samples and their mean, twice
        assert sheet.size == (7 * (4 * 9 + 1), 7 * (2 * 9 + 1))


def test_a_mask_is_brought_to_the_shape_if_asked(run):
    given = ("restore", "m", "digits:0", "--count", 1, "--steps", 2, "--measure")
    Image.open("mask.png").convert("RGB").resize((16, 16), 0).save("large.png")
    status, _, error = run(*given, "--mask", "large.png")
    assert status == 2
    assert "a mask has 8x8 pixels and 1 channel: bring it to that shape, or add --resize" in error
    for mask, more in (("mask.png", ()), ("large.png", ("--resize",))):
        assert run(*given, "--mask", mask, "--output", mask + ".npz", *more)[0] == 0
    assert torch.equal(read("mask.png.npz"), read("large.png.npz"))


@pytest.mark.parametrize("operator", ["blur", "downsample"])
def test_models_of_half_precision_restore(run, operator):
    model = from_pretrained("m")
    save_pretrained(model.bfloat16(), "m")
    given = ("restore", "m", "digits:0", "--operator", operator, "--measure", "--steps", 3)
    status, out, error = run(*given)
    assert (status, error) == (0, "")
    assert "4 converged" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("denoise", "m", "digits:0", "--add", 1), "--add must be a share of noise"),
        (("denoise", "m", "digits:0", "--add", 0.5, "--sigma", 1), "leave one of them out"),
        (("denoise", "m", "digits:0", "--labels", 11), "11"),
        (("denoise", "m", "fashion-mnist-test:0"), "--resize"),
        (
            ("restore", "m", "digits:0"),
            "takes --mask MASK.png, a picture that is white where pixels are known",
        ),
        (("restore", "m", "digits:0", "--operator", "grey", "--mask", "mask.png"), "--mask"),
        (("restore", "m", "digits:0", "--operator", "downsample"), "--resize"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, arguments, sentence):
    status, _, err = run(*arguments)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err
