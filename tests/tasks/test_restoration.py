import pytest
import torch
from torch.nn import functional

import eqm
from eqm.data import digits
from eqm.descent import Outcome
from eqm.sampling import starting_noise
from eqm.tasks import Blur, Downsample, Grey, Inpaint, restore
from eqm.tasks.operators import least_squares

HALF = torch.arange(8).expand(8, 8) < 4


@pytest.fixture(scope="module")
def digit():
    return digits().data[:100].double()


@pytest.fixture(scope="module")
def oracle(digit):
    return eqm.OptimalField(digit)


OPERATORS = {
    "holes": Inpaint(HALF),
    "own holes": Inpaint(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.4),
    "blocks": Downsample(2),
    "blur": Blur.gaussian(0.6),
    "motion": Blur.motion(3, 45),
    "grey": Grey(),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_way_back_is_that_of_the_matrix(name, ridge):
    operator = OPERATORS[name]
    x = starting_noise((3, 8, 8), seeds=[0, 1]).double()
    y = operator(x)
    unit = torch.eye(3 * 8 * 8, dtype=torch.float64).view(-1, 3, 8, 8)
    found = least_squares(operator, y, x, ridge=ridge, iterations=2000)
    for k in range(2):
        columns = [operator(u.expand(2, -1, -1, -1))[k].flatten() for u in unit]
        matrix = torch.stack(columns, 1)
        square = matrix @ matrix.T + ridge * torch.eye(len(matrix), dtype=torch.float64)
        expected = matrix.T @ torch.linalg.pinv(square, hermitian=True) @ y[k].flatten()
        torch.testing.assert_close(found[k].flatten(), expected, rtol=2e-3, atol=2e-3)


def test_a_blur_is_a_convolution_that_repeats_the_edges():
    kernel = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)).double()
    x = starting_noise((2, 8, 9), seeds=[0]).double()
    padded = functional.pad(x, (2, 2, 1, 1), mode="replicate")
    expected = functional.conv2d(padded.transpose(0, 1), kernel[None, None]).transpose(0, 1)
    torch.testing.assert_close(Blur(kernel)(x), expected)
    for blur in (Blur.gaussian(2.0), Blur.motion(9, 30)):
        assert blur.kernel.sum() == pytest.approx(1)
        torch.testing.assert_close(blur.kernel, blur.kernel.flip(0, 1), rtol=0, atol=1e-3)
    assert Blur.motion(5).kernel[2].sum() == pytest.approx(1)  # along the middle row
    for length in (4, 5, 8, 9):  # as wide as it says: the variances of an even move and of pixels
        row = Blur.motion(length).kernel.sum(0)
        places = torch.arange(len(row)) - len(row) // 2
        spread = (row * places**2).sum().item()
        assert spread == pytest.approx((length - 1) ** 2 / 12 + 1 / 6, rel=0.15)


def test_what_is_known_stays_and_the_rest_is_found(oracle, digit):
    operator = Inpaint(HALF)
    y = operator(digit[:20])
    end = restore(oracle, y, operator, count=2, seed=5)
    torch.testing.assert_close(operator(end.x), y.repeat_interleave(2, 0), rtol=0, atol=1e-6)
    nearest = torch.cdist(end.x.flatten(1), digit.flatten(1)).argmin(1)
    assert (nearest == torch.arange(20).repeat_interleave(2)).float().mean() > 0.5  # .01 by chance
    later = restore(oracle, y[3:4], operator, count=2, seed=5 + 6)
    torch.testing.assert_close(later.x, end.x[6:8])  # by measurement and seed alone
    assert end.nfe.tolist() == [25] * 40


def test_noise_is_not_fitted(oracle, digit):
    operator = OPERATORS["blur"]
    clean = operator(digit[:20])
    y = clean + 0.3 * starting_noise(clean.shape[1:], seeds=range(20)).double()
    told, untold = (
        operator(restore(oracle, y, operator, noise=noise).x) - clean for noise in (0.3, 0.0)
    )
    assert told.norm() < 0.5 * untold.norm()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATORS)
def test_models_of_half_precision_restore(digit, name, kind):
    def field(x, labels):
        assert x.dtype == kind
        return 4 * x

    field.shape, operator = (1, 8, 8), OPERATORS[name]
    y = operator(digit[:2].float()).to(kind)
    end = restore(field, y, operator, steps=5)
    assert end.x.dtype == kind
    assert end.outcome == (Outcome.CONVERGED,) * 2
    assert (operator(end.x.float()) - y).abs().max() < 0.05


def test_each_image_may_have_its_own_mask(oracle, digit):
    masks = torch.stack([HALF, ~HALF])[:, None]
    y = Inpaint(masks)(digit[:2])
    end = restore(oracle, y, Inpaint(masks), count=3, seed=1)
    torch.testing.assert_close(end.x[3:] * ~HALF, y[1:].expand(3, -1, -1, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operator": lambda x: x + 1}, r"must be linear"),
        ({"operator": Downsample(2)}, r"must have shape \(2, 1, 4, 4\), .*; got \(2, 1, 8, 8\)"),
        ({"operator": Downsample(3)}, r"factor must divide the sides .* got 3"),
        ({"operator": Inpaint(torch.ones(7, 7))}, r"mask must fit images \(2, 1, 8, 8\)"),
        ({"noise": -1.0}, "noise must be finite and 0 or more"),
        ({"count": 0}, "count must be"),
        (
            {"labels": torch.zeros(3).long()},
            r"one a sample \(2\); got torch.int64 \(3,\)",
        ),
        ({"measurement": torch.full((2, 1, 8, 8), 255.0)}, "rescale it"),
        ({"field": lambda x, labels: x}, "the .shape of one image"),
    ],
)
def test_what_cannot_be_restored_is_named(oracle, settings, message):
    usual = {"field": oracle, "measurement": torch.zeros(2, 1, 8, 8), "operator": Inpaint(HALF)}
    with pytest.raises(ValueError, match=message):
        restore(**{**usual, **settings})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Inpaint(torch.full((8, 8), 0.5)),
            "mask must be 1 where pixels are known and 0 elsewhere",
        ),
        (
            lambda: Inpaint(torch.zeros(8, 8)),
            "mask must be 1 where pixels are known; got 0 everywhere",
        ),
        (lambda: Blur(torch.ones(2, 3)), r"both odd; got \(2, 3\)"),
        (lambda: Blur.gaussian(0.0), "sigma must be a positive number of pixels"),
        (lambda: Blur.motion(0), "length must be a number of pixels, 1 or more; got 0"),
        (lambda: Blur.motion(3, float("inf")), "angle must be finite; got inf"),
    ],
)
def test_operators_that_are_none_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
