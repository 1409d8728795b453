"""A convolution with batch norm and activation, the layer of published image networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

Sides = tuple[int, int]


class Convolution(nn.Module):
    """A convolution without bias, its batch norm, and an activation (None for none).

    `padding` is a number for each axis, or "same" as in TensorFlow: the least padding that gives
    ceil(side / stride) outputs, with the odd pixel at the end.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sides,
        *,
        stride: int = 1,
        padding: Sides | str = (0, 0),
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        self.same = padding == "same"
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=(0, 0) if isinstance(padding, str) else padding,
            groups=groups,
            bias=False,
        )
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)
        self.activation = activation(inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The activations, (B, outputs, H', W')."""
        if self.same:
            x = _pad(x, self.conv.kernel_size, self.conv.stride)
        return self.activation(self.bn(self.conv(x)))


def fold(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, with the batch norms folded into the convolutions, in place.

    It computes the same function, up to rounding, in less time.
    """
    network.eval()
    for layer in network.modules():
        if isinstance(layer, Convolution) and isinstance(layer.bn, nn.BatchNorm2d):
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.bn)
            layer.bn = nn.Identity()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _pad(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    sides = []
    for axis in (1, 0):  # functional.pad starts with the last axis
        side, step = x.shape[2 + axis], stride[axis]
        missing = max((-(-side // step) - 1) * step + kernel[axis] - side, 0)
        sides += [missing // 2, missing - missing // 2]
    return functional.pad(x, sides) if any(sides) else x
