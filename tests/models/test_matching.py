"""What a new network takes over from a trained one, and what it leaves fresh."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from eqm.models import MLPConfig, TransformerConfig, UNetConfig, build, load_matching

UNET = UNetConfig(shape=(1, 8, 8), num_classes=3, width=4, multipliers=(1, 2), positions=True)
VIT = TransformerConfig(shape=(1, 4, 6), num_classes=3, patch=1, width=8, depth=1, heads=2)
MLP = MLPConfig(shape=(2,), num_classes=3, width=4, depth=1)


def trained(config):
    network = build(config)
    for weight in network.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight)
    return network


@pytest.mark.parametrize("config", [UNET, VIT, MLP], ids=lambda config: type(config).__name__)
def test_the_same_sizes_take_all(config):
    network, source = build(config), trained(config)
    assert load_matching(network, source) == []
    assert all(map(torch.equal, network.state_dict().values(), source.state_dict().values()))


@pytest.mark.parametrize(
    ("config", "changes", "fresh"),
    [
        (UNET, {"num_classes": 7}, ["condition.label.embedding_table.weight"]),
        (UNET, {"num_classes": 0}, ["condition.label.embedding_table.weight"]),
        (UNET, {"shape": (1, 16, 4)}, ["positions.0", "positions.1"]),
        (VIT, {"num_classes": 7}, ["y_embedder.embedding_table.weight"]),
        (VIT, {"num_classes": 0}, []),
        (VIT, {"shape": (1, 6, 4)}, ["pos_embed"]),  # as many tokens, at other places
        (replace(VIT, num_classes=0), {"num_classes": 3}, ["y_embedder.embedding_table.weight"]),
    ],
)
def test_other_classes_and_sizes_leave_their_tables_fresh(config, changes, fresh):
    network, source = build(replace(config, **changes)), trained(config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert load_matching(network, source) == fresh
    theirs = source.state_dict()
    for name, tensor in network.state_dict().items():
        if name not in fresh:
            assert torch.equal(tensor, theirs[name])
        elif "embedding" in name and name in theirs:
            assert torch.equal(tensor[:-1], before[name][:-1])
            assert torch.equal(tensor[-1], theirs[name][-1])  # of the null label
        else:
            assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("config", "other", "message"),
    [
        (UNET, VIT, "expected a trained UNet; got a Transformer"),
        (UNET, replace(UNET, width=8, heads=2), "with width 4, heads 0; got width 8, heads 2: set"),
        (
            UNET,
            replace(UNET, shape=(3, 8, 8)),
            r"head.bias must have .*; got \(1,\) and \(3,\): take",
        ),
        (MLP, replace(MLP, shape=(3,)), r"head.bias must have .*; got \(2,\) and \(3,\)"),
    ],
)
def test_another_network_is_refused_and_nothing_changes(config, other, message):
    network = build(config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_matching(network, trained(other))
    assert all(map(torch.equal, network.state_dict().values(), before.values()))


def test_modules_without_a_config_are_compared_by_their_layers():
    source = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3))
    network = nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 3))
    assert load_matching(network, source) == ["0.weight"]
    assert torch.equal(network[1].weight, source[1].weight)
    deeper = nn.Sequential(*source, nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"2\.bias must have the same .*; got None and \(3,\)"):
        load_matching(network, deeper)
