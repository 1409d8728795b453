import pytest
import torch

from eqm.features import fit_pca, open_features

IMAGES = torch.rand(60, 2, 3, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_components_are_the_singular_vectors_of_the_centred_images() -> None:
    found = fit_pca(IMAGES, 5)(IMAGES).vector
    rows = IMAGES.flatten(1).double()
    u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    expected = u[:, :5] * s[:5]
    signs = (found * expected).sum(0).sign()
    torch.testing.assert_close(found.double() * signs, expected, rtol=1e-4, atol=1e-5)


def test_all_components_keep_distances() -> None:
    found = fit_pca(IMAGES, 24)(IMAGES).vector
    torch.testing.assert_close(torch.pdist(found), torch.pdist(IMAGES.flatten(1)))


def test_batches_give_the_same_fit_as_one_tensor() -> None:
    batches = iter(IMAGES.split(7))
    by_name = open_features("pca:3", reference=batches)
    whole = fit_pca(IMAGES, 3)
    torch.testing.assert_close(by_name(IMAGES).vector, whole(IMAGES).vector)
    assert by_name.size == 3
    assert fit_pca(IMAGES, 3).fingerprint == whole.fingerprint
    assert fit_pca(IMAGES[:50], 3).fingerprint != whole.fingerprint


def test_invalid_fits_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 9 for 10 images of 24 values; got 10"):
        fit_pca(IMAGES[:10], 10)
    with pytest.raises(ValueError, match="1 to 0 for 0 images"):
        fit_pca([], 1)
    with pytest.raises(ValueError, match="one shape"):
        fit_pca([IMAGES, IMAGES[:, :1]], 2)
    with pytest.raises(ValueError, match="at most 16384 values; got 30000"):
        fit_pca(torch.zeros(2, 3, 100, 100), 1)
    with pytest.raises(ValueError, match=r"images of shape \(2, 3, 4\); got \(2, 4, 3\)"):
        fit_pca(IMAGES, 3)(IMAGES.mT)
    with pytest.raises(ValueError, match="need a reference; got pca:3 without one"):
        open_features("pca:3")
    with pytest.raises(ValueError, match="got pca:many"):
        open_features("pca:many", reference=[IMAGES])
