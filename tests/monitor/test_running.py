import json
import sys
import time
from dataclasses import replace

import pytest
import torch

from eqm.data import digits
from eqm.models import UNetConfig, from_pretrained
from eqm.monitor import Metrics, Monitor, callbacks, make_monitor, monitored, read_log, run, running
from eqm.monitor.log import Curves, Log
from eqm.train import OptimizerConfig, TrainConfig, checkpoint, keep_best, train

TINY = TrainConfig(
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    images=640,
    batch_size=32,
    eval_every=320,
)


@pytest.fixture(scope="module")
def parts():
    return digits().split(0.2)


class Notes:
    """A tracker that notes what it is told."""

    def __init__(self):
        self.told = []

    def start(self, images):
        self.told.append(("start", images))

    def log(self, numbers, images):
        self.told.append(("log", images, sorted(numbers)))

    def picture(self, name, path, images):
        self.told.append(("picture", images, name))

    def finish(self):
        self.told.append(("finish",))


def test_a_run_is_seen_from_all_sides(parts, tmp_path):
    seen, val_data = parts
    asked = []

    def evaluate(field):
        asked.append(field)
        return {"mine": len(asked)}

    monitor = make_monitor(TINY, tmp_path, val_data, evaluate=evaluate)
    last = run(train(TINY, seen, tmp_path), total=640, folder=tmp_path, monitor=monitor)
    assert last.images == 640
    lines = read_log(tmp_path)
    assert [line["images"] for line in lines] == list(range(32, 672, 32))
    always = {
        *("loss", "images_per_second", "gradient_norm", "learning_rate", "skipped_steps"),
        *("mfu", "data_wait_share"),
    }
    assert all(always <= line.keys() for line in lines)
    assert all(0 < line["mfu"] < 2 for line in lines)
    looks = {line["images"]: line for line in lines if "val_loss" in line}
    assert list(looks) == [320, 640]
    assert [line["mine"] for line in looks.values()] == [1, 2]
    assert looks[640]["val_loss"] < looks[320]["val_loss"]
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        *("000000320.png", "000000640.png", "latest.png", "curves.png")
    }


def test_watching_changes_no_bit_of_the_weights(parts, tmp_path):
    seen, val_data = parts
    plain, seen_run = tmp_path / "plain", tmp_path / "seen"
    for _ in train(TINY, seen, plain):
        pass
    monitor = make_monitor(TINY, seen_run, val_data)
    run(train(TINY, seen, seen_run), total=640, folder=seen_run, monitor=monitor)
    assert (plain / "model.safetensors").read_bytes() == (
        seen_run / "model.safetensors"
    ).read_bytes()


def test_a_run_that_goes_on_has_one_line_a_position(parts, tmp_path):
    steps = train(replace(TINY, checkpoint_every=320), parts[0], tmp_path)
    log = Log(tmp_path)
    for step in monitored(steps, total=640, monitor=Monitor(trackers=(log,))):
        if step.images == 512:  # crash, 192 images after the checkpoint
            break
    steps.close()
    assert [line["images"] for line in read_log(tmp_path)] == list(range(32, 544, 32))
    run(train(TINY, parts[0], tmp_path), total=640, folder=tmp_path)
    assert [line["images"] for line in read_log(tmp_path)] == list(range(32, 672, 32))


def test_trackers_are_told_in_order_and_when_a_run_goes_back(parts, tmp_path):
    steps = list(train(replace(TINY, images=128), parts[0], tmp_path))
    notes = Notes()
    monitor = Monitor((lambda step: Metrics({"a": 1.0}, {"sheet": tmp_path}),), 64, (notes,))
    again = [*steps[:3], *steps[1:]]  # 32 64 96, then back to 32
    assert list(monitored(again, total=128, monitor=monitor)) == again
    short = [entry[:2] for entry in notes.told]
    assert short == [
        *[("start", 0), ("log", 32), ("log", 64), ("picture", 64), ("log", 96)],
        *[("start", 32), ("log", 64), ("picture", 64), ("log", 96), ("log", 128)],
        *[("picture", 128), ("finish",)],
    ]


def test_what_fails_is_said_once_and_ends_nothing(parts, tmp_path):
    steps = list(train(replace(TINY, images=320), parts[0], tmp_path))

    class Full(Notes):
        def log(self, numbers, images):
            raise OSError("the disk is full")

    def callback(progress):
        raise RuntimeError("out of\n memory")

    def elsewhere(progress):
        raise SystemExit(2)  # as on_main does where the first process failed

    said, notes = [], Notes()
    monitor = Monitor((callback, elsewhere), 32, (Full(), notes))
    assert list(monitored(steps, total=320, monitor=monitor, say=said.append)) == steps
    assert said == [
        "callback failed (out of memory); training goes on without it",
        "elsewhere failed (2); training goes on without it",
        "Full failed (the disk is full); training goes on without it",
    ]
    assert sum(entry[0] == "log" for entry in notes.told) == 10


def test_early_stopping_ends_the_run_after_validations_without_progress(
    parts, tmp_path, monkeypatch, capsys
):
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    monkeypatch.setattr(
        callbacks, "loss_by_gamma", lambda *_, **__: torch.full((10,), next(losses))
    )
    config = replace(TINY, eval_every=64, stop_after=2)
    monitor = make_monitor(config, tmp_path, parts[1], keep_best=keep_best)
    end = run(train(config, parts[0], tmp_path), total=640, folder=tmp_path, monitor=monitor)
    assert end.images == 4 * 64
    assert "stopped early" in capsys.readouterr().err
    assert from_pretrained(tmp_path).metadata["training"]["images_seen"] == 4 * 64
    assert from_pretrained(tmp_path / "best").metadata["best"] == pytest.approx(2.0)


@pytest.mark.parametrize("stop_after", [2, 3, 0])
def test_a_run_that_stopped_early_is_complete_until_it_may_go_further(
    parts, tmp_path, monkeypatch, stop_after
):
    losses = iter([3.0, 2.0, 2.5, 2.0, *[2.5] * 6])
    monkeypatch.setattr(
        callbacks, "loss_by_gamma", lambda *_, **__: torch.full((10,), next(losses))
    )

    def end(config):
        monitor = make_monitor(config, tmp_path, parts[1], keep_best=keep_best)
        steps = train(config, parts[0], tmp_path)
        return run(steps, total=640, folder=tmp_path, monitor=monitor)

    config = replace(TINY, eval_every=64, stop_after=2)
    assert end(config).images == 256
    again = end(replace(config, stop_after=stop_after))
    assert (again and again.images) == {2: None, 3: 320, 0: 640}[stop_after]


class Killed(BaseException):
    """Ends a run as a kill does."""


def numbers(folder):
    """The log without what depends on the machine."""
    times = ("per_second", "mfu", "wait_share", "callback_seconds")
    return [
        {key: value for key, value in line.items() if not key.endswith(times)}
        for line in read_log(folder)
    ]


def left_by(folder):
    names = [*("model.safetensors", "config.json"), *("best/model.safetensors", "best/config.json")]
    names += [f"pictures/{name}.png" for name in ("000000160", "000000320", "latest", "curves")]
    return [(folder / name).read_bytes() for name in names] + numbers(folder)


@pytest.fixture(scope="module")
def undisturbed(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    config = replace(TINY, images=320, checkpoint_every=160, eval_every=160)
    watched(config, parts, folder)
    return left_by(folder)


def watched(config, parts, folder):
    monitor = make_monitor(config, folder, parts[1], keep_best=keep_best)
    run(train(config, parts[0], folder), total=320, folder=folder, monitor=monitor)


@pytest.mark.parametrize(
    ("module", "name", "call", "after"),
    [
        (callbacks, "loss_by_gamma", 2, False),
        (callbacks, "_descend", 2, True),
        (checkpoint, "write_pretrained", 2, False),  # the weights beside the first checkpoint
        (checkpoint, "write_pretrained", 3, True),  # the folder best at the end
        (checkpoint, "save_file", 4, True),
        (checkpoint, "_sweep", 2, False),
        (Log, "log", 7, False),
        (Curves, "log", 10, True),
    ],
)
def test_a_run_killed_at_any_place_ends_in_the_same_bits(
    parts, tmp_path, monkeypatch, undisturbed, module, name, call, after
):
    """With evaluation, checkpoint and curves due at the same image."""
    calls, original = [], getattr(module, name)

    def dies(*given, **named):
        calls.append(name)
        if len(calls) == call and not after:
            raise Killed
        result = original(*given, **named)
        if len(calls) == call:
            raise Killed
        return result

    config = replace(TINY, images=320, checkpoint_every=160, eval_every=160)
    monkeypatch.setattr(module, name, dies)
    with pytest.raises(Killed):
        watched(config, parts, tmp_path)
    monkeypatch.undo()
    watched(config, parts, tmp_path)
    assert left_by(tmp_path) == undisturbed


def test_previews_come_early_at_doubling_times(parts, tmp_path, monkeypatch):
    steps = list(train(replace(TINY, images=320), parts[0], tmp_path))  # of 32 images each
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def slowly():
        for step in steps:
            now[0] += 25.0
            yield step

    seen = []

    def early(progress):
        seen.append(progress.images)
        return Metrics()

    list(monitored(slowly(), total=320, monitor=Monitor(every=300, early=early)))
    assert seen == [128, 192]  # 75 and 125 seconds after the first step; 240 come after `every`


def test_a_log_that_cannot_be_written_does_not_end_the_run(parts, tmp_path, capsys):
    steps = train(TINY, parts[0], tmp_path)
    (tmp_path / "log.jsonl").mkdir()
    assert run(steps, total=640, folder=tmp_path).images == 640
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Log failed") == 1
    assert "training goes on without it" in said


def test_a_run_left_in_the_middle_finishes_its_trackers(parts, tmp_path):
    notes = Notes()
    steps = monitored(
        train(TINY, parts[0], tmp_path), total=640, monitor=Monitor(trackers=(notes,))
    )
    next(steps)
    steps.close()
    assert notes.told[-1] == ("finish",)


def test_without_matplotlib_the_numbers_are_there(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    seen, val_data = parts
    monitor = make_monitor(TINY, tmp_path, val_data)
    run(train(TINY, seen, tmp_path), total=640, folder=tmp_path, monitor=monitor)
    assert "val_loss/0.95" in read_log(tmp_path)[-1]
    assert not (tmp_path / "pictures" / "curves.png").exists()
    assert (tmp_path / "pictures" / "latest.png").exists()


def test_a_complete_run_says_so(parts, tmp_path, capsys):
    run(train(TINY, parts[0], tmp_path), total=640, folder=tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    assert run(train(TINY, parts[0], tmp_path), total=640, folder=tmp_path) is None
    assert "complete already" in capsys.readouterr().err
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_only_the_first_process_writes(parts, tmp_path, monkeypatch, capsys):
    steps = list(train(replace(TINY, images=64), parts[0], tmp_path))
    for module in ("running", "callbacks"):
        monkeypatch.setattr(f"eqm.monitor.{module}.is_main", lambda: False)
    looks, quiet = [], tmp_path / "quiet"
    quiet.mkdir()
    monitor = make_monitor(TINY, quiet, parts[1], keep_best=lambda state, loss: looks.append(loss))
    run(steps, total=64, folder=quiet, monitor=monitor)
    assert len(looks) == 1  # it takes part in the evaluation, which is collective
    assert not list(quiet.iterdir())
    assert capsys.readouterr().err.strip() == ""


def test_curves_are_drawn_from_any_log(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    from eqm.monitor.log import _row, draw_curves

    for lines, panels in (
        ([], 1),
        ([{"images": 5, "loss": None}], 1),  # no empty panel without a validation set
        ([{"images": 5, "loss": 1.0, "val_loss/0.05": 2.0, "val_loss/odd": 2.0}], 2),
    ):
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        draw_curves(tmp_path, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as picture:
            assert round(picture.width / picture.height / (3.4 / 2.9)) == panels
    assert _row(lines[0], "val_loss") == [(0.05, 2.0)]
