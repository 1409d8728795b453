import math

import pytest
import torch
from scipy import stats

from eqm.inspection.rates import beta_quantile, binomial_interval, promises


@pytest.mark.parametrize(("a", "b"), [(1, 19), (3, 62), (50, 1), (40, 40), (5, 9996)])
@pytest.mark.parametrize("level", [0.025, 0.5, 0.975])
def test_quantiles_of_the_beta_distribution_are_those_of_scipy(a, b, level):
    assert beta_quantile(level, a, b) == pytest.approx(stats.beta.ppf(level, a, b), rel=1e-6)


@pytest.mark.parametrize(("hits", "count"), [(0, 41), (2, 41), (41, 41)])
def test_the_interval_is_that_of_clopper_and_pearson(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    assert binomial_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-9)
    with pytest.raises(ValueError, match="hits must lie between"):
        binomial_interval(count + 1, count)


def test_the_true_rate_lies_in_the_promised_interval_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    inside, rates = 0, []
    for _ in range(200):
        scores = torch.rand(99, generator=generator, dtype=torch.float64).sort().values
        (one,) = promises(scores, [0.05])
        true = 1 - one.threshold  # of scores that are uniform
        rates.append(true)
        inside += one.low <= true <= one.high
    assert 0.91 < inside / 200 < 0.985
    assert sum(rates) / 200 == pytest.approx(0.05, abs=0.006)


def test_a_rate_that_so_few_parts_cannot_promise_says_how_many_it_needs():
    low, high = promises(torch.arange(19.0), [0.05, 0.01])
    assert (low.threshold, low.needed) == (18, 19)
    assert (high.threshold, high.needed) == (None, 99)
    assert math.isnan(high.low)
