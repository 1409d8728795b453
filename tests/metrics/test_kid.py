import numpy as np
import pytest
import torch

from eqm.metrics import bootstrap, kernel_distance, kernel_influence


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unbiased(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of all rows, by scikit-learn's kernel."""
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    (aa, bb, ab) = (
        pairwise.polynomial_kernel(x, y, degree=3, gamma=1 / x.shape[1], coef0=1)
        for x, y in ((a, a), (b, b), (a, b))
    )
    off = [k[~np.eye(len(k), dtype=bool)].mean() for k in (aa, bb)]
    return off[0] + off[1] - 2 * ab.mean()


def test_agrees_with_the_kernel_of_scikit_learn() -> None:
    a, b = normal(60, 7, seed=0), 0.3 + 1.2 * normal(60, 7, seed=1)
    found = kernel_distance(a, b, subsets=3, subset_size=60)
    assert found.value == pytest.approx(unbiased(a.double().numpy(), b.double().numpy()), rel=1e-9)
    assert found.deviation == pytest.approx(0, abs=1e-12)


def test_the_mean_is_zero_for_one_distribution_at_any_count() -> None:
    for count in (10, 40):
        found = [
            kernel_distance(
                normal(count, 3, seed=k), normal(count, 3, seed=1000 + k), subsets=1
            ).value
            for k in range(400)
        ]
        error = np.std(found) / 400**0.5
        assert abs(np.mean(found)) < 3 * error
        assert min(found) < 0


def test_influence_gives_the_standard_deviation_of_the_distance() -> None:
    reference = normal(300, 4, seed=2)
    sets = [0.5 + normal(300, 4, seed=10 + k) for k in range(100)]
    found = [kernel_distance(s, reference, subsets=1, subset_size=300).value for s in sets]
    low, _, high = bootstrap(torch.mean, kernel_influence(sets[0], reference))
    assert (high - low) / 3.92 == pytest.approx(np.std(found), rel=0.25)


def test_invalid_input_is_refused() -> None:
    with pytest.raises(ValueError, match="2 rows or more"):
        kernel_distance(torch.zeros(3, 2), torch.zeros(9, 2))
    with pytest.raises(ValueError, match="agree after the first axis"):
        kernel_distance(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(ValueError, match="samples must be finite"):
        kernel_distance(torch.full((9, 2), torch.nan), torch.zeros(9, 2))


def test_influence_has_the_mean_zero_and_is_the_derivative_by_the_weight_of_a_sample() -> None:
    a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [0.0]])
    # k(x, y) = (x y + 1)^3: mean_j k(s, a_j) is 36, 532; mean_j k(s, b_j) is 14, 172
    assert kernel_influence(a, b).tolist() == pytest.approx([22 - 360, 360 - 22])
    (one,) = kernel_influence(a[:1], b)
    assert one == 0
