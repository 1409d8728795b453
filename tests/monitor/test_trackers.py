import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from eqm.models import UNetConfig
from eqm.monitor.trackers import open_tracker
from eqm.train import TrainConfig

CONFIG = TrainConfig(
    name="mine",
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)),
)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "sheet.png"
    Image.new("L", (6, 4), 255).save(path)
    return path


def use(tracker, picture):
    tracker.start(0)
    tracker.log({"loss": 2.0, "val_loss/0.05": 3.0}, 10)
    tracker.log({"loss": 1.0}, 20)
    tracker.picture("samples", picture, 20)
    tracker.finish()


def test_tensorboard_reads_back_what_was_told(tmp_path, picture):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    use(open_tracker("tensorboard", tmp_path, CONFIG), picture)
    again = open_tracker("tensorboard", tmp_path, CONFIG)
    again.start(10)  # the second line was lost in a crash
    again.log({"loss": 0.5}, 30)
    again.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 2.0), (30, 0.5)]
    assert [e.value for e in events.Scalars("val_loss/0.05")] == [3.0]
    assert "tensorflow" not in sys.modules


def test_tensorboard_keeps_pictures_and_settings(tmp_path, picture):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    use(open_tracker("tensorboard", tmp_path, CONFIG), picture)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (sheet,) = events.Images("samples")
    assert (sheet.step, sheet.width, sheet.height) == (20, 6, 4)
    (text,) = events.Tensors("settings/text_summary")
    assert b'"model.width": 4' in text.tensor_proto.string_val[0]


class Run:
    def __init__(self, told):
        self.told = told

    def log(self, numbers):
        self.told.append(numbers)

    def define_metric(self, name, *, step_metric):
        self.told.append((name, step_metric))

    def finish(self):
        self.told.append("finish")


def stand_in(name, monkeypatch, *, key=None):
    module, told = ModuleType(name), []

    def init(**settings):
        told.append(settings)
        return Run(told)

    module.init, module.api = init, SimpleNamespace(api_key=key)
    module.Image = lambda path, *, caption: (path, caption)
    monkeypatch.setitem(sys.modules, name, module)
    return told


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_experiments_are_told_everything(tmp_path, picture, monkeypatch, name):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    told = stand_in(name, monkeypatch)
    use(open_tracker(name, tmp_path, CONFIG), picture)
    settings = told.pop(0)
    assert (settings["project"], settings["group"]) == ("eqm", "mine")
    assert settings["config"]["model.width"] == 4
    if name == "wandb":
        assert told.pop(0) == ("*", "images")
        assert (settings["mode"], settings["dir"]) == ("offline", str(tmp_path))
    assert told == [
        {"images": 10, "loss": 2.0, "val_loss/0.05": 3.0},
        {"images": 20, "loss": 1.0},
        {"images": 20, "samples": (str(picture), "20 images")},
        "finish",
    ]


@pytest.mark.parametrize(
    ("key", "wish", "mode"),
    [("k", None, "online"), ("k", "offline", "offline"), (None, "online", "online")],
)
def test_wandb_is_online_with_a_key_or_on_wish(tmp_path, picture, monkeypatch, key, wish, mode):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if wish:
        monkeypatch.setenv("WANDB_MODE", wish)
    told = stand_in("wandb", monkeypatch, key=key)
    use(open_tracker("wandb", tmp_path, CONFIG), picture)
    assert told[0]["mode"] == mode


@pytest.mark.needs("wandb")
def test_wandb_itself_works_offline(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    use(open_tracker("wandb", tmp_path, CONFIG), picture)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert any(path.suffix == ".wandb" and path.stat().st_size for path in run.iterdir())
    assert list(run.glob("files/media/images/samples_*.png"))


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")],
)
def test_a_missing_package_is_a_sentence_before_training(tmp_path, monkeypatch, name, module):
    for found in [m for m in sys.modules if m.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, found)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ValueError, match=rf"package that is missing .* pip install 'eqm\[{name}\]'"
    ):
        open_tracker(name, tmp_path, replace(CONFIG, trackers=(name,)))
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_tracker_is_named(tmp_path):
    with pytest.raises(ValueError, match="one of tensorboard, wandb, trackio; got 'abacus'"):
        open_tracker("abacus", tmp_path, CONFIG)
