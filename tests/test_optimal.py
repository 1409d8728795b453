import math

import pytest
import torch
from scipy.integrate import quad

import eqm

DECAYS = [eqm.TruncatedDecay(), eqm.LinearDecay(2.0), eqm.PiecewiseDecay()]


@pytest.fixture
def data(generator):
    return torch.randn(7, 3, generator=generator, dtype=torch.float64)


def test_it_is_the_posterior_mean_by_adaptive_quadrature(data):
    decay = eqm.TruncatedDecay()
    field = eqm.OptimalField(data, decay)
    for z in torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5)):

        def density(gamma, x, z=z):
            return (1 - gamma) ** -3 * math.exp(
                -(z - gamma * x).square().sum().item() / (2 * (1 - gamma) ** 2)
            )

        def integral(weigh, density=density):
            return sum(
                quad(lambda g, x=x: weigh(g, x) * density(g, x), 0, 1 - 1e-9, limit=200)[0]
                for x in data
            )

        evidence = integral(lambda g, x: 1.0)
        expected = [
            integral(
                lambda g, x, k=k, z=z: (
                    decay(torch.tensor(g)).item() / (1 - g) * (z[k] - x[k]).item()
                )
            )
            / evidence
            for k in range(3)
        ]
        torch.testing.assert_close(
            field(z[None], None)[0], torch.tensor(expected).double(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("decay", DECAYS)
def test_no_perturbation_lowers_the_loss(data, decay, generator):
    # the loss of f + e g is loss(f) + 2 e <g, f - target> + e^2 |g|^2: at the minimum the middle
    # term is zero for every g
    field, objective = eqm.OptimalField(data, decay), eqm.EquilibriumMatching(decay)
    batch = data.repeat(1500, 1)
    noise = torch.randn(batch.shape, generator=generator, dtype=batch.dtype)
    gamma = torch.rand(len(batch), generator=generator, dtype=batch.dtype)
    values = field(eqm.corrupt(batch, noise, gamma), None)
    base = objective.loss_at(lambda x, labels: values, batch, noise=noise, gamma=gamma)
    for perturbation in (
        torch.sin,
        torch.cos,
        lambda x: x,
        lambda x: values,
        torch.ones_like,
        lambda x: torch.tanh(3 * x),
    ):
        for size in (0.3, -0.3):
            moved = objective.loss_at(
                lambda x, labels, p=perturbation, s=size: values + s * p(x),
                batch,
                noise=noise,
                gamma=gamma,
            )
            rise = moved - base
            assert rise.mean() > 2 * rise.std() / math.sqrt(len(rise))


def test_data_are_stationary_points(data):
    assert eqm.OptimalField(data)(data, None).norm(dim=1).max() < 1e-6


def test_labels_choose_among_the_data(data):
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    x = torch.randn(2, 3, dtype=torch.float64)
    conditional = eqm.OptimalField(data, labels=labels)
    torch.testing.assert_close(
        conditional(x, torch.tensor([1, 1])),
        eqm.OptimalField(data[3:])(x, None),
        rtol=1e-12,
        atol=1e-12,
    )
    torch.testing.assert_close(
        conditional(x, None), eqm.OptimalField(data)(x, None), rtol=1e-12, atol=1e-12
    )


def test_it_holds_in_high_dimension_and_single_precision(generator):
    data = torch.randn(50, 1, 28, 28, generator=generator)
    field = eqm.OptimalField(data)
    gamma = torch.tensor([0.3, 0.6, 0.95])
    noise = torch.randn(3, 1, 28, 28, generator=generator)
    # the data are so far apart that x determines them and gamma: the field equals the target
    x = eqm.corrupt(data[:3], noise, gamma)
    target = (noise - data[:3]) * eqm.TruncatedDecay()(gamma).view(-1, 1, 1, 1)
    gradient = field(x, None)
    assert gradient.dtype == torch.float32
    assert ((gradient - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).max() < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: eqm.OptimalField(d[:0]), "not empty"),
        (lambda d: eqm.OptimalField(d * float("nan")), "finite"),
        (
            lambda d: eqm.OptimalField(d, labels=torch.zeros(3)),
            r"labels must be a tensor of shape \(7,\)",
        ),
        (lambda d: eqm.OptimalField(d, nodes=512), "odd number"),
        (lambda d: eqm.OptimalField(d, floor=0), "floor"),
        (lambda d: eqm.OptimalField(d)(torch.zeros(1, 4), None), r"shape \(B, 3\); got \(1, 4\)"),
        (lambda d: eqm.OptimalField(d)(torch.zeros(1, 3), torch.zeros(1)), "has no labels"),
        (
            lambda d: eqm.OptimalField(d, labels=torch.zeros(7).long())(d[:1], torch.tensor([5])),
            "no data have label 5",
        ),
    ],
)
def test_bad_input_is_named(data, make, message):
    with pytest.raises(ValueError, match=message):
        make(data)
