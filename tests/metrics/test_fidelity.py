from itertools import product

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from eqm.metrics import psnr, ssim


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(3, 2, 17, 23, generator=generator) * 2 - 1
    return (clean + 0.3 * torch.randn(clean.shape, generator=generator)).clamp(-1, 1), clean


def test_psnr_agrees_with_torchmetrics(pair):
    ratio = [peak_signal_noise_ratio(a, b, data_range=2.0) for a, b in zip(*pair, strict=True)]
    torch.testing.assert_close(psnr(*pair), torch.stack(ratio))


def test_ssim_agrees_with_the_formula_in_each_window(pair):
    offset = torch.arange(-5.0, 6).double()
    bell = (-(offset[:, None] ** 2 + offset**2) / 4.5).exp()
    bell /= bell.sum()
    found = ssim(*pair)
    for image, (x, y) in enumerate(zip(*pair, strict=True)):
        values = []
        for channel, top, left in product(range(2), range(7), range(13)):
            window = (channel, slice(top, top + 11), slice(left, left + 11))
            a, b = x[window].double(), y[window].double()
            mean_a, mean_b = (bell * a).sum(), (bell * b).sum()
            spread_a, spread_b = (bell * (a - mean_a) ** 2).sum(), (bell * (b - mean_b) ** 2).sum()
            both = (bell * (a - mean_a) * (b - mean_b)).sum()
            light = (2 * mean_a * mean_b + 0.0004) / (mean_a**2 + mean_b**2 + 0.0004)
            values.append(light * (2 * both + 0.0036) / (spread_a + spread_b + 0.0036))
        torch.testing.assert_close(found[image], torch.stack(values).mean().float())


def test_equal_images_have_the_best_values(pair):
    _, clean = pair
    assert (psnr(clean, clean) == torch.inf).all()
    torch.testing.assert_close(ssim(clean, clean), torch.ones(3))


def test_images_that_cannot_be_compared_are_refused(pair):
    images, clean = pair
    with pytest.raises(ValueError, match=r"one shape \(N, ...\); got \(3, 2, 17, 23\) and \(2, "):
        psnr(images, clean[:2])
    with pytest.raises(ValueError, match="at least 11x11 pixels"):
        ssim(images[..., :10], clean[..., :10])
