"""How close restored images are to the originals."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from eqm.checks import as_floats

_SIDE, _SIGMA = 11, 1.5


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio (N,) in dB of images (N, ...) in -1..1.

    10 log10(4 / mean((images - clean)^2)), the mean over all values of an image; infinite for equal
    images. Values outside -1..1 are not clamped.

    Raises ValueError for shapes that differ.

    >>> psnr(torch.full((1, 1, 2, 2), 0.2), torch.zeros(1, 1, 2, 2))
    tensor([20.])
    """
    images, clean = _alike(images, clean)
    error = (images - clean).double().square().flatten(1).mean(1)
    return (10 * torch.log10(4 / error)).float()


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Returns the structural similarity (N,) of images (N, C, H, W) in -1..1, at most 1.

    The mean over channels and windows of
    (2 m_x m_y + c_1) (2 v_xy + c_2) / ((m_x^2 + m_y^2 + c_1) (v_x + v_y + c_2)),  Eq. 13 of Wang et
    al. 2004, with their 11x11 Gaussian windows of standard deviation 1.5, c_1 = (0.01 * 2)^2 and
    c_2 = (0.03 * 2)^2. scikit-image gives the same with `gaussian_weights=True,
    use_sample_covariance=False, data_range=2`.

    Raises ValueError for shapes that differ or images smaller than a window.

    >>> ssim(torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16))
    tensor([1.])
    """
    images, clean = _alike(images, clean)
    if images.ndim != 4 or min(images.shape[-2:]) < _SIDE:
        raise ValueError(
            f"images must be (N, C, H, W) of at least {_SIDE}x{_SIDE} pixels; "
            f"got {tuple(images.shape)}: use psnr, or resize them"
        )
    offsets = torch.arange(_SIDE, dtype=torch.float64, device=images.device) - _SIDE // 2
    window = (-((offsets / _SIGMA) ** 2) / 2).exp()
    window = window / window.sum()
    x, y = (part.double().flatten(0, 1).unsqueeze(1) for part in (images, clean))

    def mean(values: Tensor) -> Tensor:
        return functional.conv2d(
            functional.conv2d(values, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1)
        )

    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    first, second = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similar = (2 * mean_x * mean_y + first) * (2 * covariance + second)
    similar = similar / ((mean_x**2 + mean_y**2 + first) * (variances + second))
    return similar.view(len(images), -1).mean(1).float()


def _alike(images: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    images, clean = as_floats(images=images, clean=clean)
    if images.shape != clean.shape or images.ndim < 2:
        raise ValueError(
            f"images and clean must have one shape (N, ...); got {tuple(images.shape)} and "
            f"{tuple(clean.shape)}: pass one clean image per image"
        )
    for name, values in (("images", images), ("clean", clean)):
        if bad := int((~values.isfinite()).flatten(1).any(1).sum()):
            raise ValueError(
                f"{name} must be finite; got NaN or infinity in {bad} of {len(values)}: drop them first"
            )
    return images, clean
