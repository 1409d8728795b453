import numpy as np
import pytest
import torch

from eqm.metrics import distances, overlap


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[(2048, 4096), (7, 5)], ids=["whole", "blocks"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "ROWS_AT_ONCE", request.param[0])
    monkeypatch.setattr(distances, "COLUMNS_AT_ONCE", request.param[1])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("k", [1, 3, 5])
def test_agrees_with_the_neighbours_of_scikit_learn(k: int) -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    samples, references = 0.7 * normal(41, 6, seed=0) + 0.4, normal(53, 6, seed=1)
    s, r = samples.double().numpy(), references.double().numpy()

    def radii(x: np.ndarray) -> np.ndarray:
        return sklearn.NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]

    apart = np.linalg.norm(s[:, None] - r, axis=2)
    inside, around = apart <= radii(r), apart <= radii(s)[:, None]
    found = overlap(samples, references, neighbours=k)
    assert found.precision == pytest.approx(inside.any(1).mean(), rel=1e-12)
    assert found.recall == pytest.approx(around.any(0).mean(), rel=1e-12)
    assert found.density == pytest.approx(inside.sum(1).mean() / k, rel=1e-12)
    assert found.coverage == pytest.approx(inside.any(0).mean(), rel=1e-12)


def test_one_distribution_has_density_one_and_the_coverage_of_the_paper() -> None:
    k, count = 5, 1500
    found = overlap(normal(count, 8, seed=2), normal(count, 8, seed=3), neighbours=k)
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-k, abs=0.02)


def test_a_lost_mode_costs_recall_and_coverage_and_a_false_one_precision_and_density() -> None:
    left, right = normal(200, 3, seed=4), 50 + normal(200, 3, seed=5)
    both = torch.cat([left, right])
    lost = [overlap(x, both, neighbours=k) for x, k in ((normal(400, 3, seed=6), 3), (left, 5))]
    assert lost[0].precision > 0.9 > 0.5 >= lost[0].recall
    assert lost[1].coverage == 0.5
    false = [overlap(both, left, neighbours=k) for k in (3, 5)]
    assert false[0].precision == 0.5
    assert false[0].recall == 1
    assert false[1].coverage == 1


@pytest.mark.parametrize(("most", "size", "k"), [(2, 7, 3), (3, 16, 2), (255, 64, 1)])
def test_a_row_as_far_as_the_neighbour_is_inside(most: int, size: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(most + 1, (2, 150, size), generator=generator)
    a[:50] = b[50:100]  # copies, and many that are equally far
    square = lambda x, y: (x[:, None] - y).square().sum(2)  # noqa: E731  # exact, of integers

    def radii(x: torch.Tensor) -> torch.Tensor:
        return square(x, x).fill_diagonal_(1 << 40).sort(1).values[:, k - 1]

    inside = square(a, b) <= radii(b)
    found = overlap(a.float(), b.float(), neighbours=k)
    assert torch.equal(found.balls, inside.sum(1))
    assert torch.equal(found.covered, inside.any(0))
    assert torch.equal(found.recalled, (square(a, b) <= radii(a)[:, None]).any(0))


def test_copies_lie_in_the_same_balls() -> None:
    rows = normal(30, 4, seed=7)
    found = overlap(rows, rows, neighbours=3)
    assert found.recalled.all()
    assert found.covered.all()
    assert (found.balls >= 1).all()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="less than the rows of the smaller set, 3; got 3"):
        overlap(torch.zeros(3, 2), torch.zeros(9, 2), neighbours=3)
