"""The recipe `finetune`: a trained model goes on with a few pictures of one's own."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

import eqm
from eqm.data import digits, open_source
from eqm.models import UNetConfig
from eqm.recipes import RECIPES
from eqm.recipes.pixels import choose_data, choose_network
from eqm.train import ObjectiveConfig, OptimizerConfig, TrainConfig, start, train

FINETUNE = RECIPES["finetune"]
NETWORK = UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2))


@pytest.fixture
def trained(tmp_path):
    config = TrainConfig(
        model=NETWORK,
        objective=ObjectiveConfig(decay="linear", scale=2.0),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        images=64,
        batch_size=32,
    )
    for _ in train(config, digits(), tmp_path / "trained"):
        pass
    return tmp_path / "trained"


@pytest.fixture
def pictures(tmp_path):
    for name, grey in (("dark", 20), ("light", 230)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(4):
            image = Image.new("RGB", (20, 24), (grey + number, grey, grey))
            image.save(tmp_path / "mine" / name / f"{number}.png")
    return tmp_path / "mine"


def test_a_trained_model_learns_from_a_few_pictures(trained, pictures, tmp_path):
    asked = replace(
        FINETUNE,
        init_from=str(trained),
        data=replace(FINETUNE.data, path=str(pictures)),
        batch_size=8,
        compile="off",
    )
    config, picks = choose_data(asked)
    source = open_source(config.data)
    config, more = choose_network(config, source)
    config = config.suited_to(source)
    assert config.model == replace(NETWORK, num_classes=2)
    assert config.objective == ObjectiveConfig(decay="linear", scale=2.0)
    assert config.optimizer == FINETUNE.optimizer
    assert f"of {trained}, (1, 8, 8)" in picks[0]
    assert "images 20,000: the least of this recipe (100 times 8 pictures would be 800)" in more[0]
    old, new = eqm.from_pretrained(trained), start(config, torch.device("cpu")).model
    assert torch.equal(new.stem.weight, old.stem.weight)
    for step in train(replace(config, images=32), source, tmp_path / "run"):
        assert step.loss.isfinite()
    model = eqm.from_pretrained(tmp_path / "run")
    assert model.metadata["data"]["classes"] == ["dark", "light"]
    assert eqm.tasks.generate(model, ["dark", "light"]).x.shape == (2, 1, 8, 8)


def test_what_was_set_stays(trained, pictures):
    data = replace(FINETUNE.data, path=str(pictures), size=16, channels=1)
    objective = ObjectiveConfig(scale=3.0)
    config, _ = choose_data(
        replace(FINETUNE, init_from=str(trained), data=data, objective=objective)
    )
    assert (config.data, config.objective) == (data, objective)
    assert config.model == NETWORK
