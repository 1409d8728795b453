import pytest
import torch

from eqm.metrics import distances, nearest_distances


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[(2048, 4096), (7, 5), (1, 1)], ids=["whole", "blocks", "single"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "ROWS_AT_ONCE", request.param[0])
    monkeypatch.setattr(distances, "COLUMNS_AT_ONCE", request.param[1])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("exclude_self", [False, True])
def test_agrees_with_brute_force_for_all_block_sizes(exclude_self: bool) -> None:
    references = normal(23, 3, 4, seed=0)
    samples = references if exclude_self else normal(31, 3, 4, seed=1)
    every = (samples[:, None] - references).flatten(2).double().norm(dim=2)
    if exclude_self:
        every.fill_diagonal_(torch.inf)
    found = nearest_distances(samples, references, exclude_self=exclude_self)
    torch.testing.assert_close(found.distance.double(), every.min(1).values, rtol=1e-6, atol=0)
    assert found.index.tolist() == every.argmin(1).tolist()


def test_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    samples, references = normal(50, 6, seed=2).double(), normal(80, 6, seed=3).double()
    search = sklearn.NearestNeighbors(n_neighbors=1).fit(references.numpy())
    distance, index = search.kneighbors(samples.numpy())
    found = nearest_distances(samples, references)
    torch.testing.assert_close(found.distance, torch.from_numpy(distance[:, 0]))
    assert found.index.tolist() == index[:, 0].tolist()


def test_copies_have_distance_zero_even_far_from_the_origin() -> None:
    references = 1000 + normal(300, 64, seed=4)
    copied = torch.tensor([250, 0, 17])
    found = nearest_distances(references[copied], references)
    assert found.distance.tolist() == [0, 0, 0]
    assert found.index.equal(copied)


@pytest.mark.usefixtures("_blocks")
def test_excluding_itself_still_finds_a_duplicate() -> None:
    samples = torch.tensor([[0.0], [5.0], [0.0]])
    found = nearest_distances(samples, samples, exclude_self=True)
    assert found.distance.tolist() == [0, 5, 0]
    assert found.index[[0, 2]].tolist() == [2, 0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16])
def test_bytes_and_half_precision_give_float32_distances(dtype: torch.dtype) -> None:
    found = nearest_distances(torch.tensor([[0, 0]], dtype=dtype), torch.tensor([[3.0, 4.0]]))
    assert found.distance.tolist() == [5]
    assert found.distance.dtype == torch.float32


def test_no_samples_give_no_distances() -> None:
    assert nearest_distances(torch.zeros(0, 2), torch.zeros(3, 2)).distance.shape == (0,)


def test_invalid_input_is_refused() -> None:
    two, three = torch.zeros(2, 4), torch.zeros(3, 4)
    with pytest.raises(ValueError, match="agree after the first axis"):
        nearest_distances(two, torch.zeros(3, 5))
    with pytest.raises(ValueError, match="got 2 samples and 3 references"):
        nearest_distances(two, three, exclude_self=True)
    with pytest.raises(ValueError, match="got 0 references"):
        nearest_distances(two, torch.zeros(0, 4))
    with pytest.raises(ValueError, match="got 1 references with exclude_self=True"):
        nearest_distances(two[:1], two[:1], exclude_self=True)
    with pytest.raises(ValueError, match="references must be finite; got NaN or infinity in 3 of"):
        nearest_distances(two, three / 0)
