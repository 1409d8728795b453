"""Parity with vectors of the official implementation, float64 (tests/golden/README.md tells how
they were made).

The official networks output minus our fields; every comparison below says so with a minus sign, and
nothing else differs.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import eqm
from eqm.models import official

FILE = Path(__file__).parent / "golden" / "official.safetensors"
GOLDEN = load_file(FILE)
with safe_open(FILE, "pt") as opened:
    CONFIG = json.loads(opened.metadata()["config"])
X, LABELS = GOLDEN["x"], GOLDEN["y"]


@pytest.fixture(scope="module")
def net():
    weights = {
        key.removeprefix("weights."): w for key, w in GOLDEN.items() if key.startswith("weights.")
    }
    return official.load(weights, num_heads=CONFIG["num_heads"])


def close(ours, theirs):
    torch.testing.assert_close(ours.detach(), theirs, rtol=0, atol=1e-9 * theirs.abs().max().item())


def test_implicit_field(net):
    close(net(X, LABELS), -GOLDEN["field"])


@pytest.mark.parametrize(("energy", "key"), [(eqm.DotEnergy, "dot"), (eqm.NormEnergy, "l2")])
def test_energies_and_their_gradients(net, energy, key):
    value, gradient = energy(net).energy_and_gradient(X, LABELS)
    close(gradient, -GOLDEN[f"{key}.field"])
    close(value, GOLDEN[f"{key}.neg_energy_returned"])


def test_guidance_on_three_channels(net):
    guided = eqm.guide(net, 1.5, CONFIG["num_classes"], channels=CONFIG["guidance_channels"])
    close(guided(X, LABELS), -GOLDEN["cfg1.5.field"])


@pytest.mark.parametrize(
    ("key", "rule", "guidance"),
    [
        ("gd.eta0.003", eqm.GradientDescent(0.003), 1.0),
        ("ngd.eta0.0017.mu0.3", eqm.NesterovLookahead(0.0017, 0.3), 1.0),
        ("ngd.eta0.0017.mu0.3.cfg1.5", eqm.NesterovLookahead(0.0017, 0.3), 1.5),
    ],
)
def test_sampler_trajectories_end_where_the_official_ones_do(net, key, rule, guidance):
    field = eqm.guide(net, guidance, CONFIG["num_classes"], channels=CONFIG["guidance_channels"])
    descent = eqm.descend(field, X, LABELS, rule=rule, max_steps=CONFIG["steps"] - 1)
    close(descent.x, GOLDEN[key])


def test_decay():
    close(eqm.TruncatedDecay(0.8, 4.0)(GOLDEN["gamma"]), GOLDEN["decay"])


@pytest.mark.parametrize("prefix", ["", "dot."])
def test_losses_and_weight_gradients(net, prefix):
    field = eqm.DotEnergy(net) if prefix else net
    loss = eqm.EquilibriumMatching().loss_at(
        field, X, LABELS, noise=GOLDEN["noise"], gamma=GOLDEN["gamma"]
    )
    close(loss, GOLDEN[f"{prefix}loss"])
    net.zero_grad()
    loss.mean().backward()
    compared = 0
    for name, weight in net.named_parameters():
        if (key := f"{prefix}grad.{name}") in GOLDEN:
            # the official last layer is minus ours, and so is the gradient with respect to it
            close(weight.grad * (-1 if name.startswith("final_layer.linear") else 1), GOLDEN[key])
            compared += 1
    assert compared == (1 if prefix else 2)
