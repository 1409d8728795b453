"""Couplings of noise and data, against brute force and closed forms."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import eqm
from eqm.couplings import Sinkhorn, couple, independent, optimal
from eqm.data import digits
from eqm.models import MLPConfig
from eqm.train import ObjectiveConfig, TrainConfig, train


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cost(data, noise):
    return float((data - noise).square().sum())


@pytest.mark.parametrize("seed", range(4))
def test_optimal_is_the_best_of_all_permutations(seed):
    data, noise = numbers(6, 2, 3, seed=seed), numbers(6, 2, 3, seed=100 + seed)
    found = couple(optimal, data, noise, torch.rand(6))
    best = min(cost(data, noise[list(order)]) for order in itertools.permutations(range(6)))
    assert cost(data, found) == pytest.approx(best, rel=1e-6)
    assert sorted(found.flatten(1).sum(1).tolist()) == sorted(noise.flatten(1).sum(1).tolist())


def test_in_one_dimension_optimal_sorts():
    data, noise = numbers(50, 1, seed=0), numbers(50, 1, seed=1)
    found = couple(optimal, data, noise, torch.rand(50))
    assert torch.equal(found[data.flatten().argsort()], noise.sort(0).values)


def test_within_a_class_noise_stays_in_the_class():
    data, noise = numbers(40, 1, seed=2), numbers(40, 1, seed=3)
    labels = torch.arange(40) % 3
    found = couple(optimal, data, noise, torch.rand(40), labels=labels)
    for label in range(3):
        mine = labels == label
        order = data[mine].flatten().argsort()
        assert torch.equal(found[mine][order], noise[mine].sort(0).values)


def plan_of(data, noise, regularisation):
    """The entropic plan by Sinkhorn's algorithm in its plain form, float64 of numpy."""
    costs = ((data[:, None] - noise[None]) ** 2).sum(-1)
    scale = regularisation * (costs - costs.min(1, keepdims=True)).mean()
    kernel = np.exp(-costs / scale)
    left = np.ones(len(data))
    for _ in range(2000):
        right = 1 / (kernel.T @ left)
        left = 1 / (kernel @ right)
    return left[:, None] * kernel * right


@pytest.mark.parametrize("regularisation", [0.1, 1.0])
def test_sinkhorn_draws_from_the_entropic_plan(regularisation):
    data, noise = numbers(5, 2, seed=4), numbers(5, 2, seed=5)
    plan = plan_of(data.double().numpy(), noise.double().numpy(), regularisation)
    counts = np.zeros((5, 5))
    for share in (torch.arange(100) + 0.5) / 100:
        rows = Sinkhorn(regularisation, 100)(data, noise, share.expand(5))
        counts[np.arange(5), rows.numpy()] += 1
    np.testing.assert_allclose(counts / 100, plan, atol=0.011)


def test_sinkhorn_goes_from_optimal_to_independent():
    data, noise = numbers(64, 3, seed=6), numbers(64, 3, seed=7)
    uniform = torch.rand(64, generator=torch.Generator().manual_seed(0))
    best = cost(data, couple(optimal, data, noise, uniform))
    costs = [
        cost(data, couple(Sinkhorn(size), data, noise, uniform)) for size in (0.01, 0.3, 100.0)
    ]
    assert best * 0.8 < costs[0] < best * 1.3  # below 1, as noise may be drawn twice
    assert costs[0] < costs[1] < costs[2]
    assert costs[2] == pytest.approx(cost(data, noise), rel=0.3)


def test_what_is_not_finite_does_not_end_a_run():
    data, noise = numbers(4, 2, seed=8), numbers(4, 2, seed=9)
    data[0, 0] = torch.nan
    for coupling in (optimal, Sinkhorn()):
        assert torch.isfinite(couple(coupling, data, noise, torch.rand(4))).all()


CONFIG = TrainConfig(
    model=MLPConfig(shape=(1, 8, 8), num_classes=10, width=8, depth=1), images=96, batch_size=32
)


def weights(folder, images=96, micro_batch=0, **objective):
    config = replace(
        CONFIG, images=images, micro_batch=micro_batch, objective=ObjectiveConfig(**objective)
    )
    *_, last = train(config, digits(), folder)
    return torch.cat([x.flatten() for x in last.state.model.state_dict().values()])


@pytest.mark.parametrize("coupling", ["optimal", "sinkhorn"])
@pytest.mark.parametrize("within", [False, True])
def test_training_couples_and_resumes_exactly(tmp_path, coupling, within):
    chosen = {"coupling": coupling, "coupling_within_class": within}
    whole = weights(tmp_path / "whole", **chosen)
    weights(tmp_path / "parts", images=32, **chosen)
    assert torch.equal(weights(tmp_path / "parts", **chosen), whole)
    assert not torch.allclose(weights(tmp_path / "plain"), whole)
    stored = eqm.from_pretrained(tmp_path / "whole").metadata["training"]
    assert stored["objective.coupling"] == coupling


def test_micro_batches_share_the_coupling_of_the_batch(tmp_path):
    whole = weights(tmp_path / "whole", coupling="optimal")
    parts = weights(tmp_path / "parts", coupling="optimal", micro_batch=8)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_the_default_is_the_independent_coupling_to_the_bit(tmp_path, monkeypatch):
    plain = weights(tmp_path / "plain")
    monkeypatch.setattr(ObjectiveConfig, "make_coupling", lambda self: independent)
    assert torch.equal(weights(tmp_path / "coupled"), plain)


def test_a_coupling_of_ones_own_is_found_by_name_and_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_coupling.py").write_text(
        "import torch\n"
        "def reverse(data, noise, uniform):\n    return torch.arange(len(data)).flip(0)\n"
        "def wrong(data, noise, uniform):\n    return uniform\n"
    )
    reverse = ObjectiveConfig(coupling="own_coupling:reverse").make_coupling()
    data, noise = numbers(3, 2, seed=0), numbers(3, 2, seed=1)
    assert torch.equal(couple(reverse, data, noise, torch.rand(3)), noise.flip(0))
    wrong = ObjectiveConfig(coupling="own_coupling:wrong").make_coupling()
    with pytest.raises(ValueError, match=r"int64 \(B,\); got"):
        couple(wrong, data, noise, torch.rand(3))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"coupling": "optimum"}, "did you mean 'optimal'"),
        ({"coupling": "sinkhorn", "coupling_options": (("iteration", 3.0),)}, "got the option 'iteration'"),
        ({"coupling": "sinkhorn", "coupling_options": (("iterations", 0.5),)}, "whole number"),
        ({"coupling": "sinkhorn", "coupling_options": (("iterations", 0.0),)}, "iterations must be at least 1"),
        ({"coupling": "sinkhorn", "coupling_options": (("regularisation", 0.0),)}, "must be a positive"),
        ({"coupling": "nowhere_at_all:f"}, "there is no 'nowhere_at_all'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ObjectiveConfig(**settings)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="noise must have the shape of data"):
        couple(optimal, numbers(2, 3, seed=0), numbers(3, 3, seed=0), torch.rand(2))
