"""How near images are to the ones they should be."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SIDE, _SIGMA = 11, 1.5


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio (N,) in dB of images (N, ...) in -1..1.

    10 log10(4 / mean((images - clean)^2)), the mean over all values of an image; infinite where both
    are the same. Values outside the range count as they are: clamp them first.

    Raises ValueError for shapes that differ.

    >>> psnr(torch.full((1, 1, 2, 2), 0.2), torch.zeros(1, 1, 2, 2))
    tensor([20.])
    """
    _require_alike(images, clean)
    error = (images - clean).double().square().flatten(1).mean(1)
    return (10 * torch.log10(4 / error)).float()


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Returns the structural similarity (N,) of images (N, C, H, W) in -1..1, at most 1.

    The mean over channels and all whole windows of
    (2 m_x m_y + c_1) (2 v_xy + c_2) / ((m_x^2 + m_y^2 + c_1) (v_x + v_y + c_2)), Eq. 13 of Wang et
    al. 2004, with their windows, 11x11 under a bell of deviation 1.5, and c_i = (0.01 * 2)^2 and
    (0.03 * 2)^2. It is what scikit-image gives with `gaussian_weights=True,
    use_sample_covariance=False, data_range=2`.

    Raises ValueError for shapes that differ or images smaller than a window.

    >>> ssim(torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16))
    tensor([1.])
    """
    _require_alike(images, clean)
    if images.ndim != 4 or min(images.shape[-2:]) < _SIDE:
        raise ValueError(
            f"images must be (N, C, H, W) of at least {_SIDE}x{_SIDE} pixels; "
            f"got {tuple(images.shape)}: use psnr, or enlarge them"
        )
    places = torch.arange(_SIDE, dtype=torch.float64, device=images.device) - _SIDE // 2
    bell = (-((places / _SIGMA) ** 2) / 2).exp()
    bell = bell / bell.sum()
    x, y = (part.double().flatten(0, 1).unsqueeze(1) for part in (images, clean))

    def mean(values: Tensor) -> Tensor:
        return functional.conv2d(
            functional.conv2d(values, bell.view(1, 1, -1, 1)), bell.view(1, 1, 1, -1)
        )

    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    first, second = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similar = (2 * mean_x * mean_y + first) * (2 * covariance + second)
    similar = similar / ((mean_x**2 + mean_y**2 + first) * (variances + second))
    return similar.view(len(images), -1).mean(1).float()


def _require_alike(images: Tensor, clean: Tensor) -> None:
    if images.shape != clean.shape or images.ndim < 2:
        raise ValueError(
            f"images and clean must have one shape (N, ...); got {tuple(images.shape)} and "
            f"{tuple(clean.shape)}: compare each image with its own"
        )
