"""Distributions of gamma, against closed forms of scipy and quadrature."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import integrate, stats

import eqm
from eqm.corruption import ConstantDecay, LinearDecay, TruncatedDecay
from eqm.data import digits
from eqm.gammas import (
    InverseDecay,
    LogitNormal,
    Power,
    Tabulated,
    Uniform,
    Weighted,
)
from eqm.models import MLPConfig
from eqm.objective import EquilibriumMatching
from eqm.train import ObjectiveConfig, TrainConfig, train

GRID = torch.linspace(0.01, 0.97, 97, dtype=torch.float64)
LINEAR_FLOOR = 0.02


def log_uniform(gamma):
    """1 / (1 - gamma) on 0..1 - LINEAR_FLOOR."""
    return 1 / (1 - gamma) / -math.log(LINEAR_FLOOR) * (gamma < 1 - LINEAR_FLOOR)


def of_logistic(gamma):
    return stats.norm.pdf(math.log(gamma / (1 - gamma)), 0.5, 0.8) / gamma / (1 - gamma)


CASES = {
    "uniform": (Uniform(), lambda g: 1.0),
    "power": (Power(1.3), lambda g: stats.beta.pdf(g, 1 / 1.3, 1)),
    "logit-normal": (LogitNormal(0.5, 0.8), of_logistic),
    "inverse of linear": (InverseDecay(LinearDecay(4.0), floor=LINEAR_FLOOR), log_uniform),
    "triangle": (Tabulated(lambda gamma: gamma * 7), lambda g: 2 * g),
    "parabola": (Tabulated(lambda gamma: gamma * (1 - gamma)), lambda g: stats.beta.pdf(g, 2, 2)),
    "two steps": (Tabulated(lambda g: (g > 0.5).double()), lambda g: 2.0 * (g > 0.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_density_is_the_closed_form_and_the_quantile_inverts_its_integral(name):
    distribution, density = CASES[name]
    expected = torch.tensor([float(density(float(g))) for g in GRID])
    inside = (GRID - 0.5).abs() > 1e-4  # the edge of the steps is a cell wide
    torch.testing.assert_close(
        distribution.density(GRID)[inside], expected.double()[inside], rtol=1e-4, atol=1e-6
    )
    for share in (0.003, 0.2, 0.5, 0.77, 0.999):
        gamma = float(distribution.quantile(torch.tensor([share], dtype=torch.float64)))
        below, _ = integrate.quad(density, 0, gamma, points=[min(0.5, gamma)], limit=200)
        assert below == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_drawn_gammas_follow_the_density(name):
    distribution, density = CASES[name]
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    gamma, weight = distribution.draw(uniform)
    assert (gamma.dtype, gamma.shape, weight) == (torch.float32, uniform.shape, 1.0)
    assert 0 <= gamma.min() <= gamma.max() <= 1
    mean, _ = integrate.quad(
        lambda g: g * density(g), 0, 1, points=[0.5, 1 - LINEAR_FLOOR], limit=200
    )
    square, _ = integrate.quad(
        lambda g: g * g * density(g), 0, 1, points=[0.5, 1 - LINEAR_FLOOR], limit=200
    )
    error = math.sqrt((square - mean**2) / len(gamma))
    assert float(gamma.mean()) == pytest.approx(mean, abs=5 * error)


@pytest.mark.parametrize("name", ["power", "logit-normal", "triangle"])
def test_weights_give_the_same_mean_loss_as_sampling(name):
    distribution, _ = CASES[name]
    uniform = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    gamma, _ = distribution.draw(uniform)
    same, weight = Weighted(distribution).draw(uniform)
    assert torch.equal(same, uniform)
    loss = (3 * gamma).cos() + 2
    torch.testing.assert_close(
        (weight * ((3 * same).cos() + 2)).mean(), loss.mean(), rtol=2e-3, atol=0
    )


def test_the_exact_field_of_a_linear_decay_denoises_under_the_density_of_gamma():
    """f = scale * (z - E[data | z]), with a posterior by quadrature over gamma."""
    data = torch.tensor([[0.0, 1.0], [0.5, -1.0], [-1.0, 0.2]], dtype=torch.float64)
    z = torch.tensor([[0.3, 0.1], [1.2, -0.4]], dtype=torch.float64)
    decay = LinearDecay(3.0)
    distribution = InverseDecay(decay, floor=LINEAR_FLOOR)
    field = eqm.OptimalField(data, decay, distribution=distribution, nodes=2001)

    def mass(i, row):
        def at(gamma):
            level = 1 - gamma
            distance = float((z[row] - gamma * data[i]).square().sum())
            return log_uniform(gamma) * level**-2 * math.exp(-distance / 2 / level**2)

        return integrate.quad(at, 0, 1 - LINEAR_FLOOR, limit=500, epsabs=1e-12)[0]

    found = field(z)
    uniform = eqm.OptimalField(data, decay, nodes=2001)(z)
    for row in range(2):
        masses = torch.tensor([mass(i, row) for i in range(3)], dtype=torch.float64)
        posterior = masses / masses.sum()
        torch.testing.assert_close(
            found[row], 3 * (z[row] - posterior @ data), rtol=2e-3, atol=2e-3
        )
    assert (found - uniform).abs().max() > 0.02


def test_the_objective_draws_or_weights():
    data = digits().data[:64]

    def loss(**changes):
        objective = EquilibriumMatching(**changes)
        return objective(lambda x, labels: x, data, generator=torch.Generator().manual_seed(3))

    power = Power(2.0)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(data.shape, generator=generator)
    uniform = torch.rand(64, generator=generator)
    plain = EquilibriumMatching()

    def at(gamma):
        return plain.loss_at(lambda x, labels: x, data, noise=noise, gamma=gamma)

    assert torch.equal(loss(), at(uniform))
    torch.testing.assert_close(loss(distribution=power), at(uniform**2))
    weight = 0.5 / uniform.sqrt()
    torch.testing.assert_close(loss(distribution=Weighted(power)), at(uniform) * weight)


CONFIG = TrainConfig(
    model=MLPConfig(shape=(1, 8, 8), num_classes=10, width=8, depth=1), images=96, batch_size=32
)


def trained(folder, **objective):
    config = replace(CONFIG, objective=ObjectiveConfig(**objective))
    *_, last = train(config, digits(), folder)
    return last


def test_training_uses_it_stores_it_and_resumes_exactly(tmp_path):
    chosen = {"gamma": "logit-normal", "gamma_options": (("mean", 0.5),)}
    drawn = trained(tmp_path / "drawn", **chosen)
    weighted = trained(tmp_path / "weighted", **chosen, gamma_weights=True)
    uniform = trained(tmp_path / "uniform")
    assert len({float(run.loss) for run in (drawn, weighted, uniform)}) == 3
    metadata = eqm.from_pretrained(tmp_path / "drawn").metadata["training"]
    assert (metadata["objective.gamma"], metadata["objective.gamma_options"]) == (
        "logit-normal",
        [["mean", 0.5]],
    )
    config = replace(CONFIG, objective=ObjectiveConfig(**chosen))
    list(train(replace(config, images=32), digits(), tmp_path / "parts"))
    *_, again = train(config, digits(), tmp_path / "parts")
    ours, theirs = (run.state.model.state_dict() for run in (drawn, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(ValueError, match="objective.gamma was logit-normal and is now uniform"):
        list(train(CONFIG, digits(), tmp_path / "drawn"))


def test_a_run_from_before_there_were_distributions_goes_on(tmp_path, monkeypatch):
    from eqm.train import checkpoint

    flat = checkpoint.settings_of
    new = ("objective.gamma", "objective.gamma_options", "objective.gamma_weights")
    monkeypatch.setattr(
        checkpoint, "settings_of", lambda *x: {k: v for k, v in flat(*x).items() if k not in new}
    )
    list(train(replace(CONFIG, images=32), digits(), tmp_path))
    monkeypatch.undo()
    *_, last = train(CONFIG, digits(), tmp_path)
    assert last.images == 96


def bad_nan(gamma):
    return (gamma - 0.5).log()


@pytest.mark.parametrize(
    ("density", "sentence"),
    [
        (lambda gamma: gamma - 0.1, "at least 0 everywhere; got -0.1 at gamma 0"),
        (lambda gamma: 1 / (1 - gamma), "finite and at least 0 everywhere; got inf at gamma 1"),
        (bad_nan, "got nan at gamma 0"),
        (lambda gamma: gamma * 0, "must integrate to a positive number"),
        (lambda gamma: (gamma == 0.5).double(), "must integrate to a positive number"),
        (lambda gamma: 1.0, r"must return a tensor \(Q,\)"),
        (lambda gamma: gamma[:3], r"must return a tensor \(Q,\)"),
        (lambda gamma: float(gamma), r"must be a function of gamma \(Q,\); it failed, with"),
        (None, "distribution must be a function"),
    ],
)
def test_a_density_that_is_none_is_one_sentence(density, sentence):
    with pytest.raises(ValueError, match=sentence):
        Tabulated(density)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gamma": "logit-nomal"}, "did you mean 'logit-normal'"),
        ({"gamma": "power", "gamma_options": (("exponent", 0.0),)}, "exponent must be a positive"),
        ({"gamma": "power", "gamma_options": (("mean", 0.0),)}, "takes exponent; got the option"),
        (
            {"gamma": "uniform", "gamma_options": (("a", 0.0), ("a", 1.0))},
            "gamma_options must name each",
        ),
        ({"gamma": "inverse-decay", "gamma_options": (("floor", 1.0),)}, "floor must lie in"),
        ({"gamma": "math:nothing"}, "has no function or class 'nothing'"),
        ({"gamma": "torch:log"}, "everywhere; got -inf at gamma 0"),
        ({"gamma": "torch:logit"}, "everywhere; got -inf at gamma 0"),
    ],
)
def test_settings_that_make_no_density_are_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        ObjectiveConfig(**settings)
    assert "\n" not in str(caught.value)


def test_own_densities_are_found_by_name():
    config = ObjectiveConfig(gamma="torch:square")
    square = config.make_distribution()
    torch.testing.assert_close(square.density(GRID), 3 * GRID**2, rtol=1e-3, atol=1e-4)
    assert isinstance(replace(config, gamma_weights=True).make_distribution(), Weighted)


def test_decays_without_zero_have_an_inverse():
    for decay in (ConstantDecay(), TruncatedDecay()):
        distribution = InverseDecay(decay)
        c = decay(GRID)
        ratio = distribution.density(GRID) * c
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)
