import numpy as np
import pytest
import torch
from PIL import Image

from eqm.cli.main import main
from eqm.models import UNet, UNetConfig, from_pretrained, save_pretrained


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in a folder with the model `m` and returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    network = UNet(UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1,)))
    save_pretrained(network, "m", metadata={"sampling": {"step_size": 0.1}})
    save_pretrained(UNet(UNetConfig(shape=(2, 8, 8), width=4, multipliers=(1,))), "two")
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save("white.png")
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save("colour.png")

    def call(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # the parser's own
            status = stop.code
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def test_a_sheet_holds_compositions_above_their_labels_alone(run):
    status, out, _ = run("compose", "m", "7 + 0.5*3 - 1", "--count", 12)
    assert status == 0
    assert "its 3 labels alone" in out
    with Image.open("composition.png") as sheet:  # two rows of ten, each above three
        assert sheet.size == (7 * 91, 7 * (8 * 9 + 1))


def test_masks_and_models_are_given_by_name(run):
    settings = ("--count", 2, "--masks", "all=white.png", "--models", "b=m")
    assert run("compose", "m", "all*7 + ~all*b:3", *settings, "--output", "a.npz")[0] == 0
    assert run("compose", "m", "7", "--count", 2, "--models", "b=m", "--output", "b.npz")[0] == 0
    a, b = (np.load(name)["arr_0"].astype(int) for name in ("a.npz", "b.npz"))
    assert a.shape == (2, 8, 8, 1)
    assert np.abs(a - b).max() <= 1


def test_paths_and_variations_begin_with_the_pictures(run):
    assert run("interpolate", "m", "digits:0-2", "--count", 3, "--output", "a.npz")[0] == 0
    frames = torch.from_numpy(np.load("a.npz")["arr_0"])
    assert frames.shape == (6, 8, 8, 1)
    assert torch.equal(frames[2], frames[3])
    status, out, _ = run("interpolate", "m", "digits:0-1", "--labels", 0, 1, "--output", "a.gif")
    assert status == 0
    assert "1 path of 9 images" in out
    assert run("vary", "m", "digits:0", "--strength", 0, "--count", 2, "--output", "b.npz")[0] == 0
    same = torch.from_numpy(np.load("b.npz")["arr_0"])
    assert torch.equal(same, frames[:1].expand(2, -1, -1, -1))
    assert run("vary", "m", "digits:0-1", "--labels", 0, 1)[0] == 0
    with Image.open("variations.png") as sheet:
        assert sheet.size == (7 * 82, 7 * 19)


def test_paths_that_diverge_are_named(run):
    broken = from_pretrained("m")
    for weight in broken.parameters():
        torch.nn.init.constant_(weight, torch.nan)
    save_pretrained(broken, "broken")
    for through in ("noise", "landscape"):
        status, _, error = run("interpolate", "broken", "digits:0-1", "--through", through)
        assert status == 0
        assert " of 9 images diverged: " in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("compose", "m", "7 +"),
            "expected a label (a whole number, a name or none) at position 4",
        ),
        (("compose", "m", "12"), "labels must lie in 0..9, or be none for no class; got 12"),
        (("compose", "m", "7", "--masks", "white.png"), "given as NAME=PATH; got white.png"),
        (
            ("compose", "m", "7", "--masks", "a=colour.png"),
            "of 8x8 pixels and 3 channels; a mask has 8x8 pixels and 1 channel: bring it to that shape\n",
        ),
        (
            ("compose", "m", "c:7", "--models", "b=m"),
            "there is no model 'c', only one without a name, b\n",
        ),
        # before anything is drawn, which that seed would not let be
        (
            ("compose", "two", "none", "--seed", 2**63 - 1),
            "a picture must have 1, 3 or 4 channels; got 2",
        ),
        (
            ("sample", "two", "--labels", "none", "--output", "a.npz", "--dry-run"),
            "leave labels out",
        ),
        (("compose", "m", "7", "--output", "a.gif"), "output must end in .png or .npz"),
        (("compose", "m", "7", "--models", "f=fashion-mnist"), "must have one shape"),
        (("interpolate", "m", "digits:0"), "two pictures or more; got 1"),
        (
            ("interpolate", "m", "digits:0-1", "--labels", 1),
            "one for each picture; got 1 for 2 pictures",
        ),
        (("vary", "m", "fashion-mnist-test:0"), "the model takes 8x8 pixels and 1 channel"),
        (
            ("vary", "m", "digits:0", "--strength", 2),
            "strength must be a number from 0 to 1; got 2",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, arguments, sentence):
    status, _, error = run(*arguments)
    assert status == 2
    assert sentence in error
    assert len([line for line in error.splitlines() if not line.startswith("warning: ")]) == 1
