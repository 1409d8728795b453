"""`train` with data and a module of one's own."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import eqm
from eqm.data import digits
from eqm.models import MLPConfig
from eqm.train import ObjectiveConfig, OptimizerConfig, TrainConfig, train

DIGITS = digits()
X, Y = DIGITS.data, DIGITS.classes
CONFIG = TrainConfig(
    model=MLPConfig(shape=(1, 8, 8), num_classes=10, width=8, depth=1),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    images=96,
    batch_size=32,
    checkpoint_every=32,
)


class Plain(nn.Module):
    """A module that knows nothing of eqm."""

    def __init__(self, num_classes=0):
        super().__init__()
        self.num_classes = num_classes
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 64))
        self.labels = nn.Embedding(num_classes + 1, 64)

    def forward(self, x, labels=None):
        out = self.inner(x)
        return (out if labels is None else out + self.labels(labels)).reshape(x.shape)


def last(run):
    *_, end = run
    return end


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))


@pytest.mark.parametrize(
    "data",
    [(X, Y), TensorDataset(X, Y), DataLoader(TensorDataset(X, Y), batch_size=7)],
    ids=["pair", "dataset", "loader"],
)
def test_all_kinds_of_data_train_the_same_weights(tmp_path, data):
    ours = last(train(CONFIG, data, tmp_path / "ours")).state.model.state_dict()
    theirs = last(train(CONFIG, DIGITS, tmp_path / "theirs")).state.model.state_dict()
    assert same(ours, theirs)


def test_a_tensor_of_points_trains(tmp_path):
    config = replace(CONFIG, model=MLPConfig(shape=(2,), width=8))
    assert last(train(config, torch.randn(50, 2), tmp_path)).images == 96
    assert eqm.tasks.generate(eqm.from_pretrained(tmp_path), count=3).x.shape == (3, 2)


@pytest.mark.parametrize("num_classes", [0, 10])
@pytest.mark.parametrize("energy", ["implicit", "dot"])
def test_any_module_trains_resumes_and_loads(tmp_path, num_classes, energy):
    module = Plain(num_classes)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    config = replace(CONFIG, objective=ObjectiveConfig(energy=energy))
    data = (X, Y) if num_classes else X
    whole = last(train(config, data, tmp_path / "whole", model=module)).state
    assert same(module.state_dict(), before)
    last(train(replace(config, images=64), data, tmp_path / "parts", model=module))
    parts = last(train(config, data, tmp_path / "parts", model=module)).state
    assert same(whole.model.state_dict(), parts.model.state_dict())
    assert not same(
        whole.average.state_dict(),
        module.state_dict()
        if energy == "implicit"
        else {f"net.{name}": value for name, value in before.items()},
    )
    model = eqm.from_pretrained(tmp_path / "parts", network=Plain(num_classes))
    assert same(model.state_dict(), parts.average.state_dict())
    labels = torch.tensor([3, 10]) if num_classes else None
    assert eqm.tasks.generate(model, labels, count=2, shape=(1, 8, 8)).x.shape == (2, 1, 8, 8)


def test_a_module_is_monitored(tmp_path):
    from eqm.monitor import make_monitor, read_log, run

    config = replace(CONFIG, model=MLPConfig(shape=(1, 8, 8)), eval_every=96)
    steps = train(config, X, tmp_path, model=Plain())
    monitor = make_monitor(last_config(config), tmp_path, val_data=DIGITS)
    run(steps, total=96, folder=tmp_path, monitor=monitor)
    assert "val_loss" in read_log(tmp_path)[-1]
    assert (tmp_path / "pictures" / "latest.png").exists()


def last_config(config):
    return replace(config, model=MLPConfig(shape=(1, 8, 8), num_classes=0))
