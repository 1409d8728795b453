"""Principal components of images, or of samples of any shape, as features."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from eqm.checks import check_count, kind_of
from eqm.devices import pick_device
from eqm.features.features import Features, as_samples, from_module
from eqm.registry import register

_LARGEST = 1 << 14  # the most values per image; the covariance then takes 2 GiB


class Projection(nn.Module):
    """Projects images (B, C, H, W), less their `mean`, on a `basis` (D, N): (B, N)."""

    mean: Tensor
    basis: Tensor

    def __init__(self, shape: tuple[int, ...], mean: Tensor, basis: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)

    def forward(self, images: Tensor) -> Tensor:
        """The coordinates. Raises ValueError for images of another shape."""
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"these components take images of shape {self.shape}; got "
                f"{tuple(images.shape[1:])}: resize them, or fit components on such images"
            )
        return (images.flatten(1) - self.mean) @ self.basis


def fit_pca(
    images: Tensor | Iterable[Tensor], components: int, *, device: str | torch.device = "cpu"
) -> Features:
    """Features: the first principal components, fitted on `images`.

    `images` is (N, C, H, W) in -1..1, samples (N, ...) of another kind, or an iterable of such batches, which is
    read once. The coordinates are not whitened, so all components together keep distances. The largest entry of each
    component is positive. Raises ValueError for more components than images less one or than values per
    image, and for images of more than 16,384 values.

    >>> images = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> fit_pca(images, 3)(images).vector.shape
    torch.Size([20, 3])
    """
    check_count(components=components)
    device = pick_device(str(device))
    if isinstance(images, str | dict | set) or not isinstance(images, Iterable):
        raise ValueError(f"images must be a tensor, or batches of them; got {kind_of(images)}")
    if hasattr(images, "ndim"):  # a tensor or an array
        images = as_samples(images)  # type: ignore[arg-type]
    exact = "cpu" if device.type == "mps" else device  # mps has no float64
    count, total, products = 0, torch.zeros(0), torch.zeros(0)
    shape: tuple[int, ...] = ()
    for batch in images.split(1024) if isinstance(images, Tensor) and images.ndim else images:
        batch = as_samples(batch)
        rows = batch.flatten(1).to(exact, torch.float64)
        if not count:
            shape, size = tuple(batch.shape[1:]), rows.shape[1]
            if size > _LARGEST:
                raise ValueError(
                    f"components take images of at most {_LARGEST} values; got {size}, of shape "
                    f"{shape}: use lite0 or smaller images"
                )
            total, products = rows.new_zeros(size), rows.new_zeros(size, size)
        elif batch.shape[1:] != shape:
            raise ValueError(
                f"images must have one shape; got {shape} and {tuple(batch.shape[1:])}: resize them"
            )
        count += len(rows)
        total += rows.sum(0)
        products.addmm_(rows.T, rows)
    if not 1 <= components <= min(count - 1, len(total)):
        raise ValueError(
            f"components must be 1 to {max(min(count - 1, len(total)), 0)} for {count} images of "
            f"{len(total)} values; got {components}: ask for fewer, or give more images"
        )
    mean = total / count
    _, vectors = torch.linalg.eigh(products / count - mean.outer(mean))
    basis = vectors[:, -components:].flip(1)  # the largest eigenvalue first
    basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    return from_module(
        Projection(shape, mean.float(), basis.float()).to(device),
        name=f"pca:{components}",
        size=components,
        any_shape=True,
    )


@register("features", "pca")
def open_pca(argument: str, device: torch.device, reference: Iterable[Tensor] | None) -> Features:
    """The first `argument` components, fitted on `reference`."""
    if not argument.isdecimal() or reference is None:
        raise ValueError(
            "principal components are pca:N, such as pca:64, and need a reference; got "
            f"pca:{argument}{' without one' if reference is None else ''}: pass reference, or use fit_pca"
        )
    return fit_pca(reference, int(argument), device=device)
