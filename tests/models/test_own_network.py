"""A network of one's own: registered in its file, then built, saved, loaded, costed and trained."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import eqm
from eqm.data import digits
from eqm.models import Network, NetworkConfig, build, cost, from_pretrained, save_pretrained
from eqm.models.network import config_type
from eqm.train import TrainConfig, train
from eqm.train.config import OptimizerConfig
from eqm.train.optimizer import make_optimizer


@dataclass(frozen=True)
class MineConfig(NetworkConfig):
    width: int = 8
    rates: tuple[float, ...] = (1.0, 0.5)
    activation: str = "tanh"


@eqm.register("network", "mine")
class Mine(Network):
    config: MineConfig

    def __init__(self, config):
        super().__init__(config)
        size = torch.Size(config.shape).numel()
        self.first = nn.Linear(size, config.width)
        self.middle = nn.Linear(config.width, config.width)
        self.last = nn.Linear(config.width, size)
        # A table that is not saved, made of numbers that the meta device cannot give.
        self.register_buffer("table", torch.tensor(torch.arange(2.0).tolist()), persistent=False)

    def forward(self, x, labels=None):
        h = self.middle(self.first(x.flatten(1)).tanh())
        return self.last(h).reshape(x.shape) * self.table[1]

    def outer_layers(self):
        return [self.first, self.last]


CONFIG = MineConfig(shape=(1, 8, 8), rates=(0.25, 2))


def test_it_is_built_saved_and_loaded_by_its_name(tmp_path):
    network = build(CONFIG)
    assert type(network) is Mine
    save_pretrained(network, tmp_path)
    again = from_pretrained(tmp_path)
    assert (type(again), again.config) == (Mine, CONFIG)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(again(x), network(x))
    assert cost(CONFIG).parameters == 64 * 8 + 8 + 8 * 8 + 8 + 8 * 64 + 64


def test_it_is_trained(tmp_path):
    model = replace(CONFIG, width=64)
    optimizer = OptimizerConfig(name="muon", learning_rate=1e-2, warmup=200)
    config = TrainConfig(model=model, optimizer=optimizer, images=3200, batch_size=32)
    losses = [step.loss for step in train(config, digits(), tmp_path)]
    assert losses[-1] < 0.8 * losses[0]
    assert type(from_pretrained(tmp_path)) is Mine


def test_its_outer_layers_are_not_for_muon():
    network = build(CONFIG)
    groups = make_optimizer(network, OptimizerConfig(name="muon"), torch.device("cpu")).param_groups
    assert [[w.shape for w in group["params"]] for group in groups[:2]] == [
        [network.middle.weight.shape],
        [network.first.weight.shape, network.last.weight.shape],
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 2.5}, "width must be a whole number; got 2.5"),
        ({"rates": (1, "2")}, r"rates\[1\] must be a number; got '2'"),
        ({"activation": 3}, "activation must be text; got 3"),
        ({"shape": (0,)}, r"shape\[0\] must be a whole number from 1 to"),
    ],
)
def test_its_config_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_a_network_without_a_config_class_is_explained():
    @eqm.register("network", "a-nameless-one")
    class Nameless(Network):
        pass

    try:
        with pytest.raises(
            ValueError, match="a-nameless-one must name its config class: write `config:"
        ):
            config_type("a-nameless-one")
        with pytest.raises(ValueError, match="got NetworkConfig: register the network whose class"):
            build(NetworkConfig())
        assert type(build(CONFIG)) is Mine  # the others are still found
    finally:
        del eqm.registry._REGISTERED["network"]["a-nameless-one"]
