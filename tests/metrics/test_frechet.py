import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eqm.metrics import (
    Moments,
    bootstrap,
    frechet_at_infinity,
    frechet_distance,
    frechet_influence,
)


def normal(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def features(count: int, size: int, seed: int) -> torch.Tensor:
    return normal(count, size, seed=seed) @ normal(size, size, seed=seed + 1) + seed


def test_diagonal_gaussians_have_their_closed_form() -> None:
    a = Moments(torch.tensor([0.0, 1.0]), torch.diag(torch.tensor([1.0, 4.0])), 10)
    b = Moments(torch.tensor([3.0, 1.0]), torch.diag(torch.tensor([9.0, 0.0])), 10)
    assert frechet_distance(a, b) == pytest.approx(9 + (1 - 3) ** 2 + (2 - 0) ** 2, rel=1e-12)


def test_point_masses_have_their_squared_distance() -> None:
    a, b = (Moments(torch.full((3,), value), torch.zeros(3, 3), 5) for value in (0.0, 2.0))
    assert frechet_distance(a, b) == 12


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_matrix_square_root_of_scipy(seed: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = (Moments.of(features(60, 12, s)) for s in (seed, seed + 10))
    root = np.real(linalg.sqrtm((a.covariance @ b.covariance).numpy()))
    expected = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()
    expected = float(expected) - 2 * np.trace(root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [8, 200])  # fewer and more samples than features
def test_identical_sets_have_distance_zero(count: int) -> None:
    a = Moments.of(features(count, 32, 3))
    assert 0 <= frechet_distance(a, a) <= 1e-12 * float(a.covariance.trace())


def test_is_symmetric_and_positive_for_rank_deficient_sets() -> None:
    a, b = Moments.of(features(5, 20, 0)), Moments.of(features(9, 20, 4))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a, b) > 0


def test_spreads_in_orthogonal_subspaces_only_add_up() -> None:
    left, right = torch.zeros(2, 10, 6, dtype=torch.float64).unbind()
    left[:, :3], right[:, 3:] = normal(10, 3, seed=0), normal(10, 3, seed=1)
    a, b = Moments.of(left - left.mean(0)), Moments.of(right - right.mean(0))
    expected = float((a.covariance + b.covariance).trace())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 8), count=st.integers(2, 20))
def test_a_rotation_of_both_sets_changes_nothing(seed: int, size: int, count: int) -> None:
    a, b = features(count, size, seed % 1000), features(count + 3, size, seed % 997)
    rotation = torch.linalg.qr(normal(size, size, seed=seed)).Q
    turned = frechet_distance(Moments.of(a @ rotation), Moments.of(b @ rotation))
    scale = float(a.square().sum() + b.square().sum())
    assert turned == pytest.approx(
        frechet_distance(Moments.of(a), Moments.of(b)), rel=1e-8, abs=1e-10 * scale
    )


@pytest.mark.parametrize("sizes", [(50, 50), (99, 1), (1, 1, 98), (7, 30, 63)])
def test_merged_batches_give_the_moments_of_the_whole(sizes: tuple[int, ...]) -> None:
    whole = features(100, 5, 2)
    merged, *rest = (Moments.of(batch) for batch in whole.split(sizes))
    for batch in rest:
        merged = merged.merge(batch)
    expected = Moments.of(whole)
    assert merged.count == 100
    torch.testing.assert_close(merged.mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(merged.covariance, expected.covariance, rtol=1e-10, atol=1e-10)


def test_moments_are_float64_and_match_numpy() -> None:
    sample = features(40, 4, 1).float()
    moments = Moments.of(sample)
    assert moments.mean.dtype == moments.covariance.dtype == torch.float64
    np.testing.assert_allclose(moments.covariance, np.cov(sample.double().numpy().T), rtol=1e-10)


def test_invalid_input_is_refused() -> None:
    one, two = Moments.of(torch.zeros(1, 2)), Moments.of(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="at least 2 feature vectors; got 4 and 1"):
        frechet_distance(two, one)
    with pytest.raises(ValueError, match="one size; got 2 and 3"):
        frechet_distance(two, Moments.of(torch.zeros(4, 3)))
    with pytest.raises(ValueError, match=r"shape \(N, D\)"):
        Moments.of(torch.zeros(4))
    with pytest.raises(ValueError, match="mean must be finite"):
        Moments.of(torch.tensor([[torch.nan], [0.0]]))
    with pytest.raises(ValueError, match="count must be at least 1"):
        Moments(torch.zeros(2), torch.zeros(2, 2), 0)
    with pytest.raises(ValueError, match="must have shapes"):
        Moments(torch.zeros(2), torch.zeros(3, 3), 4)


def test_full_gaussians_have_their_closed_form() -> None:
    # Covariances that commute: the distance is that of the eigenvalues.
    basis = torch.linalg.qr(normal(40, 40, seed=5)).Q
    a, b = (torch.linspace(*ends, 40, dtype=torch.float64) for ends in ((0.1, 9), (4, 0.5)))
    one, two = (Moments(torch.zeros(40), basis @ v.diag() @ basis.mT, 99) for v in (a, b))
    expected = float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)


def test_influence_is_the_derivative_by_the_weight_of_a_sample() -> None:
    sample, reference = features(30, 4, 1), Moments.of(features(50, 4, 6))

    def weighted(extra: float) -> float:
        weights = torch.full((30,), (1 - extra) / 30, dtype=torch.float64)
        weights[3] += extra
        mean = weights @ sample
        centred = sample - mean
        # Unbiased at no extra weight, as `Moments.of` is.
        covariance = centred.mT @ (centred * weights[:, None]) * 30 / 29
        return frechet_distance(Moments(mean, covariance, 30), reference)

    slope = (weighted(1e-5) - weighted(-1e-5)) / 2e-5
    found = frechet_influence(sample, reference)
    assert float(found[3]) == pytest.approx(slope, rel=0.05)
    assert float(found.sum()) == pytest.approx(0, abs=1e-9 * float(found.abs().max()))


def test_influence_gives_the_standard_deviation_of_the_distance() -> None:
    reference = Moments(torch.zeros(3), torch.eye(3), 10_000)
    sets = [0.5 + 1.5 * normal(400, 3, seed=k) for k in range(300)]
    found = [frechet_distance(Moments.of(each), reference) for each in sets]
    low, _, high = bootstrap(torch.mean, frechet_influence(sets[0], reference))
    assert (high - low) / 3.92 == pytest.approx(np.std(found), rel=0.15)


def test_the_extrapolation_removes_the_bias() -> None:
    reference = Moments(torch.zeros(16), torch.eye(16), 10_000)
    found = [frechet_at_infinity(normal(500, 16, seed=k), reference).value for k in range(5)]
    biased = frechet_distance(Moments.of(normal(500, 16, seed=0)), reference)
    assert biased > 0.1  # of one distribution: the truth is 0
    assert abs(np.mean(found)) < 0.1 * biased


def test_the_error_of_the_extrapolation_is_that_of_a_fitted_line(monkeypatch) -> None:
    found = {64: 1.0, 32: 1.3, 16: 1.4, 8: 2.5}
    monkeypatch.setattr(
        "eqm.metrics.frechet.frechet_distance", lambda moments, _: found[moments.count]
    )
    line, covariance = np.polyfit([1 / n for n in found], list(found.values()), 1, cov=True)
    value, error = frechet_at_infinity(normal(64, 2, seed=0), Moments.of(normal(9, 2, seed=1)))
    assert value == pytest.approx(line[1])
    assert error == pytest.approx(covariance[1, 1] ** 0.5)


def test_too_few_rows_for_the_extrapolation_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows per subset; got 3 and 1"):
        frechet_at_infinity(torch.zeros(9, 2), Moments.of(torch.zeros(9, 2)))
