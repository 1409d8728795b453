import re

import numpy as np
import pytest
import torch
from PIL import Image

import eqm
from eqm.cli.main import main
from eqm.data import digits
from eqm.models import UNetConfig, build, save_pretrained
from eqm.pictures import to_uint8

SMALL = ["--model.width", "4", "--model.multipliers", "1", "2", "--images", "640"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "digits", *SMALL, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder and returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # the parser's own
            status = stop.code
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def test_a_sheet_of_samples(model, run, tmp_path):
    status, out, _ = run("sample", model)
    assert status == 0
    assert "Solution of 100" in out
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.size == (7 * 91, 7 * 91)


def test_a_sheet_of_many_classes_stays_a_sheet(run):
    network = build(UNetConfig(shape=(1, 4, 4), num_classes=1000, width=4, multipliers=(1,)))
    save_pretrained(network, "m", metadata={"data": {"classes": [f"c{k}" for k in range(1000)]}})
    counts = []
    for labels in ([], ["--labels", *range(0, 400, 10)], ["--labels", "C7", "none"]):
        _, out, _ = run("sample", "m", "--dry-run", *labels)
        counts += [line.split()[1] for line in out.splitlines() if line.startswith("count ")]
    assert counts == ["100", "400", "20"]


def test_samples_as_numbers_are_the_pictures(model, run, tmp_path):
    arguments = ("sample", model, "--labels", 3, 5, "--count", 4, "--seed", 8)
    assert run(*arguments, "--output", "a.npz")[0] == 0
    assert run(*arguments, "--output", "b.npz", "--batch-size", 1)[0] == 0
    a, b = (np.load(tmp_path / name)["arr_0"] for name in ("a.npz", "b.npz"))
    assert a.shape == (4, 8, 8, 1)
    assert a.dtype == np.uint8
    assert np.abs(a.astype(int) - b).max() <= 1


def test_settings_on_the_command_line_beat_the_stored_ones(model, run):
    _, out, _ = run("sample", model, "--dry-run", "--rule", "gradient-descent", "--guidance", 2)
    settings = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert settings["rule"] == "gradient-descent"
    assert settings["guidance"] == "2.0"
    assert settings["gradient_ratio"] == "0.1"


def test_info_tells_what_a_model_is(model, run):
    _, out, _ = run("info", model)
    assert "training.images_seen" in out
    assert "640" in out
    assert "network.width" in out
    _, out, _ = run("info", "EqM-XL/2")
    assert "675,129,632" in out


def test_a_dry_run_prints_every_setting_and_the_cost_and_writes_nothing(run, tmp_path):
    for command in (["train", "digits"], ["demo"]):
        status, out, _ = run(*command, "--dry-run")
        assert status == 0
        assert "optimizer.learning_rate" in out
        assert not list(tmp_path.iterdir())
    out = run("train", "digits", "--dry-run")[1]
    assert "250,337 parameters" in out
    assert re.search(r"about [\d.]+ (seconds|minutes|hours) of training on this device\n", out)


def test_a_dry_run_tells_the_cost_before_there_are_data(run):
    assert "the data are missing" in run("train", "folder", "--dry-run")[1]
    status, out, err = run("train", "imagenet256-b-2", "--dry-run")
    assert (status, err) == (0, "")
    assert "model.shape" in out
    assert "130,512,416 parameters" in out
    assert "there are no latents at imagenet256-latents: make them by `eqm encode" in out


def test_the_same_command_again_finds_all_done_and_changes_nothing(model, run):
    before = {path: path.stat().st_mtime_ns for path in [model, *model.rglob("*")]}
    status, out, err = run("train", "digits", *SMALL, "--output", model)
    assert status == 0
    assert "complete already; the model is in" in out
    assert "complete already" in err
    assert {path: path.stat().st_mtime_ns for path in [model, *model.rglob("*")]} == before
    out = run("train", "digits", *SMALL, "--images", "320", "--output", model)[1]
    assert "complete already" in out
    assert "320 images seen" not in out  # it has seen more


def test_the_baseline_is_sampled_with_its_own_clock(run, tmp_path):
    assert run("train", "digits-flow", *SMALL, "--output", "flow")[0] == 0
    status, out, _ = run("sample", "flow", "--guidance", 1.5)
    assert status == 0
    assert "NFE 20" in out


def test_images_of_the_whole_last_batch_are_counted_as_seen(run):
    status, out, _ = run("train", "digits", *SMALL, "--images", 100)
    assert status == 0
    assert "128 images seen" in out


@pytest.mark.parametrize(
    ("command", "takes"),
    [
        ("sample", "MODEL"),
        ("info", "MODEL"),
        ("tune", "MODEL"),
        ("distill", "MODEL"),
        ("ema", "RUN"),
        ("eval", "SAMPLES"),
        ("encode", "PICTURES"),
        ("data", "check|download PATH"),
        ("compose", "MODEL EXPRESSION"),
        ("denoise", "MODEL PICTURES ..."),
        ("restore", "MODEL PICTURES ..."),
        ("detect", "MODEL PICTURES ..."),
        ("interpolate", "MODEL PICTURES ..."),
        ("vary", "MODEL PICTURES ..."),
    ],
)
def test_help_says_what_a_command_takes(run, command, takes):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert takes in out.split("\n\n")[0]


def test_help_does_not_say_the_opposite_of_what_a_flag_does(run):
    assert "Whether to encode mirror images too" in " ".join(run("encode", "--help")[1].split())


def test_nothing_held_out_trains_on_everything(run):
    status, out, _ = run("train", "digits", *SMALL, "--data.val-fraction", 0, "--seed", 20260101)
    assert status == 0
    assert "1,797 training images, 0 validation images" in out


def test_my_own_images_bring_their_shape_and_classes(run, tmp_path):
    images = digits()
    np.savez("mine.npz", images=to_uint8(images.data).repeat(3, axis=3), labels=images.classes % 4)
    arguments = ("train", "digits", *SMALL, "--data.path", "mine.npz", "--name", "mine")
    assert run(*arguments)[0] == 0
    assert run("sample", "runs/mine")[0] == 0
    with Image.open("samples.png") as sheet:
        assert sheet.mode == "RGB"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sample", "nowhere"], "expected a folder, a model that comes with eqm"),
        (["sample", "{model}", "--labels", "3", "12"], "labels must lie in 0..9"),
        (["sample", "{model}", "--output", "x.jpg"], "or have no ending for a folder; got x.jpg"),
        (["sample", "{model}", "--count", "0"], "count must be a whole number from 1 to 2^62"),
        (
            ["sample", "{model}", "--step-size", "0"],
            "step_size must be a finite number above 0; got 0.0",
        ),
        (["sample", "{model}", "--step-size", "7"], "step_size must not exceed path_length"),
        (["sample", "{model}", "--device", "warp"], 'device "warp" is not available'),
        (["sample", "{model}", "--output", "/dev/null/x.png"], "choose another folder"),
        (["sample", "{model}", "--output", "{model}/x.png"], "x.png is a folder: choose another"),
        (["sample", "{model}", "--animate", "/dev/null/x.gif"], "choose another folder"),
        (["sample", "{model}", "--animate", "x.webm"], "animate must end in .gif or .mp4"),
        (["info", "EqM-B/3"], "did you mean 'EqM-B"),
        (["train", "digits", "--data.path", "cats"], "data.path must be a folder"),
        (
            ["train", "folder", "--data.path", "{model}", "--output", "{model}/run"],
            "lies in the folder",
        ),
        (
            ["train", "digits", "--model.shape", "3", "16", "16"],
            "must be the shape of the data, (1, 8, 8)",
        ),
        (["sample", "{model}/config.json"], "expected a folder, a model that comes with eqm"),
        (["sample", "{model}", "--device", "meta"], "the device meta cannot compute"),
        (
            ["train", "imagenet256-b-2"],
            "no latents at imagenet256-latents: make them by `eqm encode",
        ),
        (["train", "digits", "--output", "/dev/null/x"], "choose another folder"),
        (["train", "digits", "--output", "{model}"], "holds a run with other settings"),
        (["train", "digits", "--model.width", "50000"], "fit here"),
        (
            ["train", "folder", "--data.path", "moons"],
            "does not take samples of shape (2,), as moons has",
        ),
        (["train", "digits", "--images", "0"], "eqm: images must be at least 1; got 0"),
        (
            ["train", "digits", "--optimizer.learning-rate", "-1"],
            "eqm: optimizer.learning_rate must be a number above 0 and up to 1,000; got -1.0",
        ),
        (["demo", "--output", "/dev/null/x"], "choose another folder"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(model, run, arguments, sentence):
    (model / "x.png").mkdir(exist_ok=True)
    status, out, err = run(*[argument.format(model=model) for argument in arguments])
    assert status == 2
    assert "Solution" not in out  # said before the work
    assert sentence in err
    assert err.strip().startswith("eqm: ")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smaple"], "did you mean 'sample'?"),
        (["train", "cats"], "the recipe must be one of digits,"),
        (["train", "digit"], "got 'digit' (did you mean 'digits'?)"),
        (["train", "digits", "--imges", "3"], "eqm train digits --help"),
        (["sample", "fashion-mnis"], "got fashion-mnis (did you mean 'fashion-mnist'?)"),
        (["train", "digits", "--model.widht", "3"], "--model.width"),
        (
            ["train", "digits", "--objective.decay", "steep"],
            "constant, linear, piecewise, truncated",
        ),
    ],
)
def test_options_that_are_none_are_named_with_status_2(run, arguments, words):
    status, out, err = run(*arguments)
    assert status == 2
    flat = " ".join((out + err).replace("│", " ").split())
    assert words in flat
    assert "Traceback" not in flat


def test_samples_that_another_process_owes_are_missed(model, run, tmp_path, monkeypatch):
    monkeypatch.setattr(eqm.tasks, "gather", lambda ends: ends[:-3])
    status, _, err = run("sample", model, "--count", 10, "--output", "x.npz")
    assert status == 2
    assert "another process failed; 7 of 10 samples are in x.npz" in err
    assert len(np.load("x.npz")["arr_0"]) == 7


def test_an_interruption_keeps_what_was_drawn_and_says_so(model, run, monkeypatch):
    def interrupted(*arguments, **settings):
        yield next(iter(draw(*arguments, **settings)))
        raise KeyboardInterrupt

    draw = eqm.tasks.draw
    monkeypatch.setattr(eqm.tasks, "draw", interrupted)
    status, _, err = run("sample", model, "--count", 10, "--output", "x.npz")
    assert (status, err) == (130, "eqm: interrupted; 1 of 10 samples are in x.npz\n")


def test_a_process_that_fails_hands_over_what_it_has(model, run, monkeypatch):
    gathered = []

    def fails(*arguments, **settings):
        raise RuntimeError("no memory")
        yield

    monkeypatch.setattr(eqm.tasks, "draw", fails)
    monkeypatch.setattr(eqm.tasks, "gather", lambda ends: gathered.append(1) or ends)
    status, _, err = run("sample", model, "--count", 10, "--output", "x.npz")
    assert (status, err, gathered) == (2, "eqm: no memory\n", [1])


def test_a_sheet_of_other_than_colours_is_refused_before_the_work(run, monkeypatch):
    config = UNetConfig(shape=(2, 8, 8), width=4, multipliers=(1,))
    save_pretrained(build(config), "two")
    assert run("sample", "two", "--count", 1, "--output", "x.npz")[0] == 0
    monkeypatch.setattr(eqm.tasks, "draw", None)
    status, _, err = run("sample", "two", "--count", 1)
    assert status == 2
    assert "a picture must have 1, 3 or 4 channels; got 2" in err


def test_weights_that_are_damaged_are_named(model, run, tmp_path):
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("config.json", "model.safetensors"):
        (torn / name).write_bytes((model / name).read_bytes())
    for name, content, sentence in [
        ("model.safetensors", b"\0" * 100, "must be a complete safetensors file"),
        ("config.json", b"{", "must be JSON"),
        ("config.json", b"{}", "not a model of eqm"),
    ]:
        (torn / name).write_bytes(content)
        status, _, err = run("sample", torn)
        assert status == 2
        assert sentence in err


def test_images_come_back_from_pictures():
    levels = torch.arange(256).view(1, 1, 16, 16)
    assert torch.equal(
        torch.from_numpy(to_uint8(levels / 127.5 - 1)).view(-1), levels.view(-1).byte()
    )
