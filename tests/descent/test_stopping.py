import math
from itertools import islice

import pytest
import torch

import eqm
from eqm.descent import Outcome, Stop, iterate

HALVE = eqm.GradientDescent(0.5)
STOPS = {
    "gradient norm": eqm.GradientNorm(0.1),
    "relative": eqm.RelativeGradientNorm(0.05),
    "stagnation": eqm.Stagnation(2, 0.2),
    "path": eqm.PathLength(2.0),
    "nfe": eqm.MaxNFE(5),
    "either": eqm.RelativeGradientNorm(0.01) | eqm.Stagnation(4) | eqm.GradientNorm(0.02),
}


def bowl(x, labels):
    return x


def falling_to(level):
    """A field whose gradient halves with every step until its norm is that of the row's label."""

    def field(x, labels):
        return x.sign() * torch.maximum(x.abs() - 1, level[labels][:, None])

    return field


def test_relative_norm_is_relative_to_the_first_gradient_of_the_sample():
    x = torch.tensor([[1.0], [1e3], [1e-3]])
    descent = eqm.descend(bowl, x, rule=HALVE, stop=eqm.RelativeGradientNorm(0.1))
    assert descent.steps.tolist() == [5, 5, 5]  # 1/16 is the first below 1/10
    assert set(descent.outcome) == {Outcome.CONVERGED}


def test_relative_norm_ends_at_the_same_gamma_in_any_dimension():
    shares = []
    for size in (512, 4096):
        datum, start = torch.randn(2, 1, size, generator=torch.Generator().manual_seed(0)).double()
        end = eqm.descend(
            eqm.OptimalField(datum),
            start,
            rule=eqm.GradientDescent(0.001),
            stop=eqm.RelativeGradientNorm(0.25),
        )
        shares.append(((end.x - datum).norm() / (start - datum).norm()).item())
    assert shares == pytest.approx([0.2 * 0.25] * 2, rel=0.1)


def test_stagnation_counts_steps_without_progress():
    norms = torch.tensor([8.0, 4.0, 4.0, 3.99, 4.1, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0])
    clock = iter(range(len(norms)))

    def field(x, labels):
        return torch.full_like(x, norms[next(clock)])

    stop = eqm.Stagnation(patience=4, ratio=0.9)
    descent = eqm.descend(field, torch.zeros(1, 1), rule=HALVE, stop=stop)
    assert descent.steps.tolist() == [10]  # the fourth after 2.0 came up
    assert descent.outcome == (Outcome.CONVERGED,)


def test_stagnation_ends_only_the_sample_without_progress():
    def field(x, labels):
        return torch.where(labels[:, None] == 0, torch.ones_like(x), x)

    x = torch.tensor([[100.0], [100.0]])
    stop = eqm.Stagnation(5)
    descent = eqm.descend(field, x, torch.tensor([0, 1]), rule=HALVE, stop=stop, max_steps=40)
    assert descent.steps.tolist() == [6, 40]


@pytest.mark.parametrize(
    ("rule", "budget", "spent"),
    [
        (eqm.GradientDescent(0.1), 5, 5),
        (eqm.Heun(0.1), 5, 4),
        (eqm.Heun(0.1), 6, 6),
        (eqm.RungeKutta4(0.1), 11, 8),
        (eqm.RungeKutta4(0.1), 3, 4),  # the first step is always made
    ],
)
def test_nfe_stays_within_the_budget(rule, budget, spent):
    descent = eqm.descend(bowl, torch.ones(3, 1), rule=rule, stop=eqm.MaxNFE(budget))
    assert descent.nfe.tolist() == [spent] * 3


def test_combined_stops_keep_both_states():
    x = torch.tensor([[1.0], [64.0]])
    relative, norm = eqm.RelativeGradientNorm(1 / 10), eqm.GradientNorm(0.3)
    for stop in (relative | norm, norm | relative, (norm | relative) | eqm.Stagnation(50)):
        assert eqm.descend(bowl, x, rule=HALVE, stop=stop).steps.tolist() == [3, 5]


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_batch_stops_as_its_rows_do_one_by_one(stop):
    level = torch.tensor([0.0, 0.005, 0.3])
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    x = 1 + torch.tensor([[1.0], [9.0], [0.5], [40.0], [3.0], [7.0]])
    rule = eqm.GradientDescent(0.4)
    whole = eqm.descend(falling_to(level), x, labels, rule=rule, stop=stop, max_steps=60)
    for i in range(len(x)):
        alone = eqm.descend(
            falling_to(level), x[i : i + 1], labels[i : i + 1], rule=rule, stop=stop, max_steps=60
        )
        assert alone.steps[0] == whole.steps[i]
        assert alone.outcome[0] == whole.outcome[i]
        assert torch.equal(alone.x[0], whole.x[i])


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_row_that_is_not_finite_diverges_under_every_stop(stop):
    x = torch.tensor([[1.0], [math.nan], [1.0]])
    descent = eqm.descend(bowl, x, rule=HALVE, stop=stop, max_steps=50)
    assert descent.outcome == (Outcome.CONVERGED, Outcome.DIVERGED, Outcome.CONVERGED)
    assert eqm.descend(bowl, x[:0], rule=HALVE, stop=stop).outcome == ()


def test_your_own_stop_needs_one_method():
    class Within(Stop):
        def __call__(self, step, state):
            return step.x.abs().amax(dim=1) < 0.2, state

    steps = list(iterate(bowl, torch.tensor([[1.0], [4.0]]), rule=HALVE, stop=Within()))
    assert [step.index.tolist() for step in steps] == [[0, 1]] * 3 + [[1]] * 2
    ends = eqm.descend(
        bowl, torch.tensor([[1.0], [4.0]]), rule=HALVE, stop=eqm.MaxNFE(4) | Within()
    )
    assert ends.steps.tolist() == [3, 4]


def test_steps_report_what_has_converged():
    first, second = islice(
        iterate(bowl, torch.tensor([[1.0], [2.0]]), rule=HALVE, stop=eqm.GradientNorm(1.1)), 2
    )
    assert first.converged.tolist() == [True, False]
    assert second.converged.tolist() == [True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eqm.RelativeGradientNorm(0), r"ratio must lie in \(0, 1\]"),
        (lambda: eqm.RelativeGradientNorm(1.5), r"ratio must lie in \(0, 1\]"),
        (lambda: eqm.Stagnation(0), "patience must be at least 1 step"),
        (lambda: eqm.Stagnation(3, math.nan), r"ratio must lie in \(0, 1\]"),
        (lambda: eqm.MaxNFE(0), "budget must be at least 1 evaluation"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
