import pytest
import torch
from torch import Tensor

from eqm.metrics import bootstrap


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(a: Tensor, b: Tensor) -> Tensor:
    return a.mean() - b.mean()


def test_the_interval_of_a_mean_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    sample = normal(400, seed=0).double()
    found = bootstrap(torch.mean, sample, resamples=4000)
    other = stats.bootstrap((sample.numpy(),), lambda x: x.mean(), method="percentile", rng=0)
    bounds = other.confidence_interval
    assert found.value == float(sample.mean())
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), abs=0.01)


def test_paired_samples_use_the_same_rows() -> None:
    common = 100 * normal(200, seed=1)
    a, b = common + normal(200, seed=2), common + normal(200, seed=3)
    paired = bootstrap(lambda pairs: difference(*pairs.T.contiguous()), torch.stack([a, b], 1))
    apart = bootstrap(difference, a, b)
    assert paired.high - paired.low < 0.5 < 10 < apart.high - apart.low
    assert paired.value == apart.value


def test_the_draws_are_a_function_of_the_seed() -> None:
    sample = normal(50, 3, seed=4)
    assert bootstrap(torch.sum, sample, seed=7) == bootstrap(torch.sum, sample, seed=7)
    assert bootstrap(torch.sum, sample, seed=7) != bootstrap(torch.sum, sample, seed=8)


def test_the_interval_covers_the_true_value_at_its_level() -> None:
    found = [
        bootstrap(torch.mean, normal(60, seed=k), resamples=200, level=0.8) for k in range(100)
    ]
    assert 68 <= sum(low <= 0 <= high for low, _, high in found) <= 90


def test_invalid_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        bootstrap(torch.mean, torch.empty(0))
    with pytest.raises(ValueError, match="resamples must be at least 1; got 0"):
        bootstrap(torch.mean, torch.zeros(3), resamples=0)
