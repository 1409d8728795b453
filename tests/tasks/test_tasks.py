from dataclasses import replace

import pytest
import torch

import eqm
from eqm.data import digits
from eqm.descent import Outcome
from eqm.models import UNet, UNetConfig
from eqm.tasks import Sampling, denoise, generate, matching_error, starting_noise

FIVE = Sampling("gradient-descent", step_size=0.02, path_length=0.1)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(UNetConfig(shape=(1, 4, 4), num_classes=3, width=4, multipliers=(1,)))
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    network.metadata = {"sampling": {"rule": "gradient-descent", "step_size": 0.02}}
    return network.eval()


def test_a_sample_depends_on_its_seed_and_label_alone(model):
    whole = generate(model, [0, 1, 2, 0, 1], seed=7, sampling=FIVE)
    pieces = generate(model, [0, 1, 2, 0, 1], seed=7, sampling=FIVE, batch_size=2)
    alone = generate(model, [2], seed=9, sampling=FIVE)
    torch.testing.assert_close(pieces.x, whole.x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone.x[0], whole.x[2], rtol=1e-5, atol=1e-5)
    assert len(pieces.outcome) == len(pieces.steps) == 5
    assert torch.equal(starting_noise((2,), seeds=[9])[0], starting_noise((2,), seeds=[7, 8, 9])[2])


def test_labels_take_turns_where_none_are_asked_for(model):
    assert len(generate(model, sampling=FIVE).x) == 3
    turns = generate(model, count=5, sampling=FIVE).x
    torch.testing.assert_close(turns, generate(model, [0, 1, 2, 0, 1], sampling=FIVE).x)
    torch.testing.assert_close(
        generate(model, 1, count=2, sampling=FIVE).x, generate(model, [1, 1], sampling=FIVE).x
    )


def test_the_settings_stored_with_the_model_are_the_default(model):
    stored = Sampling("gradient-descent", step_size=0.02)
    assert Sampling.of(model.metadata) == stored
    torch.testing.assert_close(generate(model).x, generate(model, sampling=stored).x)
    assert generate(model).steps.tolist() == [stored.max_steps] * 3


def test_settings_make_the_descent_they_describe():
    settings = Sampling("nesterov-lookahead", 0.01, 0.7, path_length=0.2, gradient_ratio=0.3)
    assert settings.make_rule() == eqm.NesterovLookahead(0.01, 0.7)
    assert settings.make_stop() == eqm.PathLength(0.2) | eqm.RelativeGradientNorm(0.3)
    assert FIVE.make_rule() == eqm.GradientDescent(0.02)
    assert FIVE.make_stop() == eqm.PathLength(0.1)
    assert Sampling(step_size=0.04, path_length=0.5).max_steps == 13


def test_guidance_reaches_the_baseline_and_denoising(model):
    config = replace(model.config, noise_conditioning=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = UNet(config)
        for weight in flow.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    plain, guided = (
        generate(flow, [0, 1], sampling=replace(FIVE, guidance=g)).x for g in (1.0, 2.0)
    )
    assert not torch.allclose(plain, guided)
    assert generate(flow, [0, 1, 2], sampling=FIVE, batch_size=2).steps.tolist() == [5, 5, 5]
    noisy, labels = starting_noise((1, 4, 4), seeds=[0, 1]), torch.tensor([0, 1])
    plain, guided = (
        denoise(model, noisy, labels, sampling=replace(FIVE, guidance=g)).x for g in (1.0, 2.0)
    )
    assert not torch.allclose(plain, guided)


def test_guidance_is_that_of_the_field(model):
    guided = generate(model, [0, 1], sampling=replace(FIVE, guidance=2.0))
    by_hand = eqm.descend(
        eqm.guide(model, 2.0, 3),
        starting_noise((1, 4, 4), seeds=[0, 1]),
        torch.tensor([0, 1]),
        rule=eqm.GradientDescent(0.02),
        max_steps=5,
    )
    torch.testing.assert_close(guided.x, by_hand.x)
    assert guided.outcome == (Outcome.CONVERGED,) * 2


def test_a_model_of_another_dtype_is_sampled_in_it(model):
    with_double = UNet(model.config).double()
    assert generate(with_double, [0, 1], sampling=FIVE).x.dtype == torch.float64


def test_an_energy_is_sampled_like_a_network(model):
    energy = eqm.DotEnergy(model)
    assert generate(energy, [0, 1], sampling=FIVE).x.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ([0, 4], None, r"labels must lie in 0..2, or be 3 for none; got 0..4"),
        ([-1], None, "got -1..-1"),
        ([0, 1], 3, r"one a sample \(3\)"),
        ([0.5], None, "whole numbers"),
        ([], None, "whole numbers"),
        (None, 0, "count must be at least 1"),
    ],
)
def test_labels_that_cannot_be_are_named(model, labels, count, message):
    with pytest.raises(ValueError, match=message):
        generate(model, labels, count=count, sampling=FIVE)


def test_a_model_without_classes_takes_no_labels():
    network = UNet(UNetConfig(shape=(1, 4, 4), width=4, multipliers=(1,)))
    assert len(generate(network, count=2, sampling=FIVE).x) == 2
    with pytest.raises(ValueError, match="without classes"):
        generate(network, [0], sampling=FIVE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 0}, "must be positive"),
        ({"path_length": -1}, "path_length must lie in"),
        ({"guidance": -1}, r"guidance must lie in \[0, inf\); got -1"),
        ({"momentum": 5}, r"momentum must lie in \[0, 1\); got 5"),
        ({"gradient_ratio": 1.5}, "gradient_ratio must lie in"),
        (
            {"rule": "adam"},
            "rule must be one of gradient-descent, nesterov-lookahead, .*; got 'adam'",
        ),
        ({"step_size": "big"}, "step_size must be a number; got 'big'"),
    ],
)
def test_sampling_settings_without_meaning_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
    with pytest.raises(ValueError, match="unknown names: colour"):
        Sampling.of({"sampling": {"colour": 3}})


@pytest.fixture(scope="module")
def oracle():
    return eqm.OptimalField(digits().data[:100].double())


@pytest.mark.parametrize("gamma", [0.7, 0.85])
def test_denoising_with_the_exact_field_finds_the_digit_without_the_level(oracle, gamma):
    clean = digits().data[:20].double()
    noise = starting_noise((1, 8, 8), seeds=range(20)).double()
    noisy = eqm.corrupt(clean, noise, torch.full((20,), gamma))
    sampling = Sampling("gradient-descent", 0.02, path_length=1.0, gradient_ratio=0.02)
    restored = denoise(oracle, noisy, sampling=sampling)
    nearest = torch.cdist(restored.x.flatten(1), digits().data[:100].double().flatten(1)).argmin(1)
    assert (nearest == torch.arange(20)).float().mean() > 0.9
    assert (restored.x - clean).norm() < 0.2 * (noisy - clean).norm()


def test_the_matching_error_is_least_on_the_data_and_one_image_has_one_score(oracle):
    data = digits().data.double()
    normal = matching_error(oracle, data[:20], draws=4)
    assert normal.max() < matching_error(oracle, -data[:20], draws=4).min()
    assert not torch.allclose(normal, matching_error(oracle, data[:20], draws=1))
    assert normal.dtype == torch.float64
    one_by_one = [matching_error(oracle, data[i : i + 1], draws=4) for i in range(20)]
    torch.testing.assert_close(torch.cat(one_by_one), normal)
