import pytest
import torch

import eqm
from eqm.descent import Trajectory, fit_multistep, record_trajectory
from eqm.descent.fitting import _moments


@pytest.fixture(scope="module")
def oracle():
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(12, 8, generator=generator, dtype=torch.float64)
    return eqm.OptimalField(data, labels=torch.arange(12) % 3)


def noise(seed, count=100, size=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


LABELS = torch.arange(100) % 3


def careful(field, x, labels=None, length=0.42):
    rule = eqm.AdamsBashforth(length / 200)
    return record_trajectory(field, x, labels, rule=rule, at=range(201))


@pytest.mark.parametrize(
    ("curvatures", "steps"), [([3.0], 1), ([1.0, 4.0], 1), ([1.0, 4.0, 9.0], 2)]
)
def test_a_linear_flow_with_few_curvatures_is_fitted_exactly(curvatures, steps):
    # n steps are a polynomial of degree n in the curvature, with free coefficients
    bowl = lambda x, labels: x * torch.tensor(curvatures).double()  # noqa: E731
    rule = fit_multistep(bowl, careful(bowl, noise(0, size=len(curvatures))), steps=steps)
    start = noise(1, size=len(curvatures))
    end = eqm.descend(bowl, start, rule=rule, max_steps=steps).x
    torch.testing.assert_close(end, careful(bowl, start).x[-1], rtol=1e-6, atol=1e-6)


def test_on_new_noise_it_follows_the_flow_better_than_other_rules(oracle):
    rule = fit_multistep(oracle, careful(oracle, noise(0), LABELS), LABELS, steps=5)
    start = noise(1)
    end = careful(oracle, start, LABELS).x[-1]

    def error(rule):
        made = eqm.descend(oracle, start, LABELS, rule=rule, max_steps=5).x
        return (made - end).square().mean().sqrt()

    others = (eqm.AdamsBashforth, eqm.NesterovLookahead, eqm.GradientDescent)
    assert error(rule) < 0.85 * min(error(other(0.42 / 5)) for other in others)


def test_fewer_weights_fit_no_better(oracle):
    way = careful(oracle, noise(0), LABELS)

    def error(**settings):
        rule = fit_multistep(oracle, way, LABELS, **settings)
        made = eqm.descend(oracle, way.x[0], LABELS, rule=rule, max_steps=len(rule.rows)).x
        return (made - way.x[-1]).square().mean()

    assert error(steps=6) < error(steps=3) < error(steps=1)
    assert error(steps=4, order=3) < error(steps=4, order=1)


def test_samples_stay_after_the_last_row(oracle):
    rule = fit_multistep(oracle, careful(oracle, noise(0), LABELS), LABELS, steps=3)
    few, more = (eqm.descend(oracle, noise(1), LABELS, rule=rule, max_steps=n) for n in (3, 7))
    assert torch.equal(few.x, more.x)
    assert [len(row) for row in rule.rows] == [4, 4, 4]
    assert rule.rows[0][2:] == (0.0, 0.0)
    assert rule.rows[1][3] == 0.0


def test_a_field_with_a_guidance_interval_is_fitted(oracle):
    led = eqm.guide(lambda x, y: x - y[:, None].double(), 3.0, 0, interval=(0.2, 0.3))
    rule = fit_multistep(led, careful(led, noise(0), LABELS), LABELS, steps=20)
    end = eqm.descend(led, noise(1), LABELS, rule=rule, max_steps=20).x
    torch.testing.assert_close(end, careful(led, noise(1), LABELS).x[-1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("exponent", [0.2, 1.0, 1.5, 8.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_steps_end_at_rising_moments_and_at_the_end(steps, exponent):
    for left in (torch.linspace(1, 0, 21), torch.tensor([1.0, *[0.5] * 19, 0.0])):
        moments = _moments(left, steps, exponent)
        assert moments == sorted(set(moments))
        assert len(moments) == steps
        assert moments[-1] == 20
    assert _moments(torch.linspace(1, 0, 21), 4, 1.0) == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("x", "settings", "message"),
    [
        (torch.randn(4, 2, 3), {"steps": 4}, "got 2 samples at 4 moments"),
        (torch.randn(9, 0, 3), {"steps": 4}, "got 0 samples at 9 moments"),
        (torch.ones(9, 2, 3), {"steps": 4}, "must move and be finite"),
        (torch.full((9, 2, 3), torch.nan), {"steps": 4}, "finite"),
        (torch.randn(9, 2, 3), {"steps": 0}, "steps must be at least 1"),
        (torch.randn(9, 2, 3), {"steps": 2, "order": 0}, "order must be at least 1"),
        (torch.randn(9, 2, 3), {"steps": 2, "exponent": 0}, "exponent must be a positive number"),
    ],
)
def test_trajectories_that_cannot_be_fitted_are_named(x, settings, message):
    count = torch.zeros(x.shape[:2])
    with pytest.raises(ValueError, match=message):
        fit_multistep(lambda x, y: x, Trajectory(x, count, count, count[0] > 0), **settings)
