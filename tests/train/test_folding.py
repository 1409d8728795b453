"""Guidance folded in while training."""

from __future__ import annotations

import pytest
import torch

from eqm import Sampling
from eqm.models import MLPConfig, from_pretrained
from eqm.tasks import generate
from eqm.train import ObjectiveConfig, OptimizerConfig, TrainConfig, train
from eqm.train.folding import Unfolded


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
def test_the_loss_is_least_at_the_guided_field(scale):
    def plain(x, labels):
        return x * (1 + labels.view(-1, 1))

    def guided(x, labels):
        null = torch.full_like(labels, 3)
        return plain(x, null) + scale * (plain(x, labels) - plain(x, null))

    x, labels = torch.randn(8, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 3] * 2)
    taught = Unfolded(guided, guided, scale, null_label=3)(x, labels)
    torch.testing.assert_close(taught, plain(x, labels))


def config(**changes):
    settings = {
        "model": MLPConfig(shape=(2,), num_classes=2, width=32, depth=2),
        "objective": ObjectiveConfig(guidance=3.0, scale=1.0),
        "optimizer": OptimizerConfig(learning_rate=3e-3, ema_halflife=2000),
        "images": 30_000,
        "batch_size": 128,
        "eval_every": 0,
        "threads": 1,
    }
    return TrainConfig(**settings | changes)


def test_a_trained_field_holds_the_guidance_it_was_asked_for(tmp_path):
    labels = torch.arange(512) % 2
    data = torch.stack([labels * 2.0 - 1, torch.zeros(512)], 1)  # two points
    for _ in train(config(), (data, labels), tmp_path / "folded"):
        pass
    for _ in train(
        config(objective=ObjectiveConfig(scale=1.0)), (data, labels), tmp_path / "plain"
    ):
        pass
    folded, plain = (from_pretrained(tmp_path / name) for name in ("folded", "plain"))
    x, null = 0.7 * torch.randn(256, 2), torch.full((256,), 2)
    chosen = torch.arange(256) % 2
    with torch.no_grad():
        wanted = plain(x, null) + 3 * (plain(x, chosen) - plain(x, null))
        error = (folded(x, chosen) - wanted).square().mean()
        apart = (plain(x, chosen) - wanted).square().mean()
    assert error < 0.1 * apart
    with pytest.raises(ValueError, match="guidance 3 is folded into this model"):
        generate(folded, count=1, sampling=Sampling(guidance=2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_dropout": 0.0}, "needs a label_dropout above 0"),
        ({"sampling": Sampling(guidance=2.0)}, "sampling.guidance must be 1"),
        ({"objective": ObjectiveConfig(guidance=2.0, energy="dot")}, "needs objective.energy impl"),
    ],
)
def test_what_cannot_be_folded(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_network_without_classes_has_no_guidance(tmp_path):
    network = MLPConfig(shape=(2,), width=8, depth=1)
    with pytest.raises(ValueError, match="needs a network with classes"):
        next(train(config(model=network), torch.zeros(256, 2), tmp_path / "run"))
