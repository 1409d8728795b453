"""Linear operators that measure images, and their least-squares inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from eqm.checks import as_floats, check_callable, check_count, check_range, check_samples, kind_of
from eqm.shapes import per_sample


class Operator(Protocol):
    """Any linear function of images (B, C, H, W) that autograd can differentiate and that treats each
    image by itself.

    An operator that differs between images also has `__getitem__(rows)`: the operator of some of them. One
    that knows A^T (A A^T + ridge)^-1 y in a closed form has it as `inverse(y, like, ridge)`, for images
    shaped as `like`; else it is computed by iterations, which takes longer.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """The measurement of images x."""


@dataclass(frozen=True, eq=False)
class Inpaint:
    """Keeps the pixels where `mask` is 1, and sets the others to 0.

    `mask` is 1 or True where pixels are known and 0 elsewhere: (H, W) or (C, H, W) for all images,
    (B, 1, H, W) or (B, C, H, W) for one mask an image. For samples with another number of `axes`, such as
    2 for signals (C, L) and 4 for videos (C, T, H, W), it has up to so many axes, and one more for one
    mask a sample.

    Raises ValueError for a mask with other values, or with 0 only.

    >>> Inpaint(torch.tensor([[1, 0]]))(torch.ones(1, 3, 1, 2))[0, 0]
    tensor([[1., 0.]])
    """

    mask: Tensor
    axes: int = 3
    """Axes of a sample: 3 for images."""

    def __post_init__(self) -> None:
        check_count(axes=self.axes)
        values = as_floats("(H, W)", mask=self.mask)
        if not isinstance(self.mask, Tensor):
            object.__setattr__(self, "mask", values)
        if not values.numel():
            raise ValueError(f"mask must have values; got {kind_of(self.mask)}")
        if (
            not (2 if self.axes == 3 else 1) <= self.mask.ndim <= self.axes + 1
            or not ((self.mask == 0) | (self.mask == 1)).all()
        ):
            raise ValueError(
                "mask must be 1 where pixels are known and 0 elsewhere, (H, W) or (B, 1, H, W); "
                f"got shape {tuple(self.mask.shape)}, values from {self.mask.min()} to {self.mask.max()}"
            )
        if not self.mask.any():
            raise ValueError("mask must be 1 where pixels are known; got 0 everywhere")

    def __getitem__(self, rows: Tensor) -> Inpaint:
        if self.mask.ndim <= self.axes or len(self.mask) == 1:
            return self
        return Inpaint(self.mask[rows.to(self.mask.device)], self.axes)

    def __call__(self, x: Tensor) -> Tensor:
        check_samples(x=x)
        mask = self.mask.to(x)
        try:
            known = x * mask
        except RuntimeError:
            known = None
        if known is None or known.shape != x.shape:
            raise ValueError(
                f"mask must fit images {tuple(x.shape)}: (H, W) or (B, 1, H, W); got {tuple(mask.shape)}"
                if x.ndim == 4
                else f"mask must fit samples {tuple(x.shape)}; got {tuple(mask.shape)}"
            )
        return known

    def inverse(self, y: Tensor, like: Tensor, ridge: float) -> Tensor:
        """A^T (A A^T + ridge)^-1 y: here A A^T is the mask itself."""
        return self(y) / (1 + ridge)


@dataclass(frozen=True)
class Downsample:
    """The means of blocks of `factor` x `factor` pixels, as for super-resolution."""

    factor: int

    def __post_init__(self) -> None:
        check_count(factor=self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        """The small images. Raises ValueError if the sides are not multiples of `factor`."""
        check_samples("(B, C, H, W)", least=3, x=x)
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise ValueError(
                f"factor must divide the sides of the images, {x.shape[-1]}x{x.shape[-2]}; "
                f"got {self.factor}"
            )
        return functional.avg_pool2d(x, self.factor)

    def inverse(self, y: Tensor, like: Tensor, ridge: float) -> Tensor:
        """A^T (A A^T + ridge)^-1 y: A A^T is 1 / factor^2."""
        wide = y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
        return wide / (1 + ridge * self.factor**2)


@dataclass(frozen=True, eq=False)
class Blur:
    """Convolution with a kernel (k, l) of odd sides, edges repeated; see `gaussian` and `motion`."""

    kernel: Tensor

    def __post_init__(self) -> None:
        values = as_floats("(k, l)", kernel=self.kernel)
        if not isinstance(self.kernel, Tensor) or not self.kernel.is_floating_point():
            object.__setattr__(self, "kernel", values)
        if not values.isfinite().all():
            raise ValueError("kernel must be finite; some values are NaN or infinity")
        if self.kernel.ndim != 2 or any(size % 2 == 0 for size in self.kernel.shape):
            raise ValueError(
                f"kernel must be (k, l), both odd; got {tuple(self.kernel.shape)}: pad it with zeros"
            )

    @classmethod
    def gaussian(cls, sigma: float) -> Blur:
        """A Gaussian kernel with a standard deviation of `sigma` pixels, cut off at 3 sigma."""
        check_range(-math.inf, math.inf, sigma=sigma)
        if not 0 < sigma < 100:
            raise ValueError(f"sigma must be a positive number of pixels; got {sigma}")
        places = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1.0)
        bell = (-((places / sigma) ** 2) / 2).exp()
        bell = bell / bell.sum()
        return cls(bell[:, None] * bell)

    @classmethod
    def motion(cls, length: int, angle: float = 0.0) -> Blur:
        """Motion along a straight line of `length` pixels, `angle` degrees from the horizontal."""
        check_range(-math.inf, math.inf, length=length, angle=angle)
        if not 1 <= length < 1000:
            raise ValueError(f"length must be a number of pixels, 1 or more; got {length}")
        radius = (length - 1) / 2  # the line joins the centres of the first and last pixel
        half = math.ceil(radius)
        kernel = torch.zeros(2 * half + 1, 2 * half + 1)
        for place in torch.linspace(-radius, radius, round(8 * radius) + 1).tolist():
            turn = math.radians(angle)
            row, column = half - place * math.sin(turn), half + place * math.cos(turn)
            top, left = min(int(row), 2 * half), min(int(column), 2 * half)
            down, right = row - top, column - left
            for i, a in ((top, 1 - down), (top + 1, down)):
                for j, b in ((left, 1 - right), (left + 1, right)):
                    if a * b > 1e-6:
                        kernel[i, j] += a * b
        return cls(kernel / kernel.sum())

    def __call__(self, x: Tensor) -> Tensor:
        check_samples("(B, C, H, W)", least=4, x=x)
        if not len(x):
            return x.clone()
        height, width = (size // 2 for size in self.kernel.shape)
        exact = x.to(
            torch.promote_types(x.dtype, torch.float32)
        )  # there is no FFT of half precision
        padded = functional.pad(exact, (width, width, height, height), mode="replicate")
        # By FFT: on a CPU the backward pass of a convolution is thirty times slower.
        sides = padded.shape[-2:]
        kernel = torch.fft.rfft2(self.kernel.flip(0, 1).to(exact), sides)
        both = torch.fft.irfft2(torch.fft.rfft2(padded) * kernel, sides)
        return both[..., 2 * height :, 2 * width :].to(x.dtype)


@dataclass(frozen=True)
class Grey:
    """The mean of the channels, as for colouring."""

    def __call__(self, x: Tensor) -> Tensor:
        check_samples(x=x)
        return x.mean(1, keepdim=True)

    def inverse(self, y: Tensor, like: Tensor, ridge: float) -> Tensor:
        """A^T (A A^T + ridge)^-1 y: A A^T is 1 / channels."""
        return y.expand_as(like) / (1 + ridge * like.shape[1])


def for_rows(operator: Operator, rows: Tensor) -> Operator:
    """The operator of some of the images."""
    return operator[rows] if hasattr(operator, "__getitem__") else operator


def measure(operator: Operator, x: Tensor) -> Tensor:
    """The measurement of images x (B, C, H, W). The operator gets a copy, as it may work in place.

    Raises ValueError if it returns no floating-point tensor with one measurement an image.
    """
    found = operator(x.clone())
    if (
        not isinstance(found, Tensor)
        or not found.is_floating_point()
        or found.shape[:1] != x.shape[:1]
        or found.device != x.device
    ):
        raise ValueError(
            f"an operator must return a floating-point tensor ({len(x)}, ...), the measurements; "
            f"got {kind_of(found)}"
        )
    return found


def least_squares(
    operator: Operator, target: Tensor, like: Tensor, *, ridge: float = 0.0, iterations: int = 20
) -> Tensor:
    """The smallest images (B, ...), shaped as `like`, whose measurement is `target`.

    A^T (A A^T + ridge)^-1 target, by the `inverse` of the operator or by conjugate gradients; with ridge 0
    this is the pseudo-inverse. Stopping early regularises operators that lose most of some detail. A^T comes
    from autograd.
    """
    if (inverse := getattr(operator, "inverse", None)) is not None:
        found: Tensor = inverse(target, like, ridge)
        return found
    transposed = torch.func.vjp(lambda x: measure(operator, x), torch.zeros_like(like))[1]
    solution, residual, direction = torch.zeros_like(target), target, target
    square = residual.square().flatten(1).sum(1)
    enough = 1e-7 * square
    for _ in range(iterations):
        if (square <= enough).all():
            break
        image = measure(operator, transposed(direction)[0]) + ridge * direction
        size = square / (direction * image).flatten(1).sum(1).clamp(min=1e-30)
        solution = solution + per_sample(size, target) * direction
        residual = residual - per_sample(size, target) * image
        before, square = square, residual.square().flatten(1).sum(1)
        direction = residual + per_sample(square / before.clamp(min=1e-30), target) * direction
    return transposed(solution)[0]


def check_linear(operator: Operator, shape: tuple[int, ...], measurement: Tensor) -> None:
    """Raises ValueError if the operator is not linear, or does not measure images of `shape` as
    `measurement`."""
    check_callable(operator=operator)
    generator = torch.Generator().manual_seed(0)
    count = len(measurement)
    a, b = (torch.randn(count, *shape, generator=generator).to(measurement) for _ in range(2))
    of_a, of_b = measure(operator, a), measure(operator, b)
    if of_a.shape != measurement.shape:
        raise ValueError(
            f"measurement must have shape {tuple(of_a.shape)}, that of the operator's measurements of "
            f"images {(count, *shape)}; got {tuple(measurement.shape)}"
        )
    if not torch.allclose(measure(operator, a + b), of_a + of_b, rtol=1e-3, atol=1e-3):
        raise ValueError(
            "the operator must be linear, A(a + b) = A(a) + A(b); it is not: if it adds a constant, "
            "subtract that from the measurement"
        )
