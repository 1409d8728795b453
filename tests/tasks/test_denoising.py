import pytest
import torch

import eqm
from eqm.data import digits
from eqm.metrics import psnr
from eqm.models import MLPConfig, build
from eqm.sampling import Sampling, starting_noise
from eqm.tasks import denoise, estimate_gamma, estimate_sigma


@pytest.fixture(scope="module")
def digit():
    return digits().data[:100].double()


@pytest.fixture(scope="module")
def oracle(digit):
    return eqm.OptimalField(digit)


def noise_of(count, shape=(1, 8, 8)):
    return starting_noise(shape, seeds=range(count)).double()


@pytest.mark.parametrize("gamma", [0.7, 0.85])
def test_the_exact_field_finds_the_digit_without_the_level(oracle, digit, gamma):
    clean = digit[:20]
    noisy = eqm.corrupt(clean, noise_of(20), torch.full((20,), gamma))
    sampling = Sampling("gradient-descent", 0.02, path_length=1.0, gradient_ratio=0.02)
    restored = denoise(oracle, noisy, sampling=sampling)
    nearest = torch.cdist(restored.x.flatten(1), digit.flatten(1)).argmin(1)
    assert (nearest == torch.arange(20)).float().mean() > 0.9
    assert (restored.x - clean).norm() < 0.2 * (noisy - clean).norm()


@pytest.mark.parametrize("decay", [eqm.TruncatedDecay(), eqm.ConstantDecay(2.0)])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_the_mean_of_a_normal_distribution_is_that_of_wiener(decay, sigma):
    variance, gamma = 0.3, torch.tensor(1 / (1 + sigma), dtype=torch.float64)

    def field(x, labels):  # E[c (noise - image) | x] at the level of this sigma
        share = gamma**2 * variance + (1 - gamma) ** 2
        return decay(gamma) * ((1 - gamma) - gamma * variance) / share * x

    y = noise_of(3)
    end = denoise(field, y, sigma=sigma, aim="mmse", decay=decay)
    torch.testing.assert_close(end.x, y * variance / (variance + sigma**2))
    each = denoise(field, y, sigma=torch.full((3,), sigma), aim="mmse", decay=decay)
    torch.testing.assert_close(each.x, end.x)
    assert end.nfe.tolist() == [1, 1, 1]


@pytest.mark.parametrize("gamma", [0.2, 0.5, 0.8, 0.95])
def test_the_field_tells_the_level_and_its_mean_is_nearer_than_the_image(oracle, digit, gamma):
    noisy = eqm.corrupt(digit, noise_of(100), torch.full((100,), gamma))
    found = estimate_gamma(oracle, noisy)
    assert (found - gamma).abs().median() < 0.06  # 64 numbers tell no more
    mean = denoise(oracle, noisy, aim="mmse").x
    assert (psnr(mean, digit) > psnr(noisy / gamma, digit)).float().mean() > 0.95


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0])
def test_the_finest_detail_tells_the_noise(sigma):
    smooth = torch.linspace(-1, 1, 65)[:, None] * torch.linspace(-1, 1, 64)
    noisy = smooth + sigma * noise_of(4, (3, 65, 64))
    torch.testing.assert_close(
        estimate_sigma(noisy), torch.full((4,), sigma, dtype=torch.float64), rtol=0.05, atol=0
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aim": "median"}, "aim must be one of sample, mmse; got 'median'"),
        ({"sigma": -1.0}, r"sigma must be .* got -1.0"),
        ({"sigma": torch.ones(3)}, r"one an image, \(2,\)"),
        ({"x": torch.full((2, 1, 8, 8), 200.0)}, "within 12; got values from 200 to 200: rescale"),
    ],
)
def test_what_cannot_be_denoised_is_named(oracle, settings, message):
    settings = {"x": noise_of(2), **settings}
    with pytest.raises(ValueError, match=message):
        denoise(oracle, **settings)


@pytest.mark.parametrize("sigma", [None, 0.0, 1e-4])
def test_the_mean_of_what_is_nearly_clean_is_finite_in_bfloat16(digit, sigma):
    x = digit[:2].bfloat16()
    end = denoise(lambda x, labels: 0 * x, x, sigma=sigma, aim="mmse")
    torch.testing.assert_close(end.x, x, rtol=0, atol=0.01)


def test_a_noise_conditioned_model_is_refused():
    told = build(MLPConfig(shape=(3,), width=8, depth=1, noise_conditioning=True))
    with pytest.raises(ValueError, match="the model is noise-conditioned"):
        denoise(told, torch.zeros(2, 3))
