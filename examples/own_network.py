"""A network of your own. On the command line: eqm --import own_network.py train digits --model tiny-conv."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

import eqm
from eqm.data import digits
from eqm.models import Network, NetworkConfig
from eqm.recipes import RECIPES
from eqm.train import train


@dataclass(frozen=True)
class TinyConvConfig(NetworkConfig):
    width: int = 16
    """Channels of the hidden layer."""


@eqm.register("network", "tiny-conv")
class TinyConv(Network):
    config: TinyConvConfig

    def __init__(self, config: TinyConvConfig) -> None:
        super().__init__(config)
        channels = config.shape[0]
        self.layers = nn.Sequential(
            nn.Conv2d(channels, config.width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width, channels, 3, padding=1),
        )

    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        return self.layers(x)


def main() -> None:
    config = replace(RECIPES["digits"], model=TinyConvConfig(shape=(1, 8, 8)), images=4_000)
    for progress in train(config, digits(), "runs/tiny-conv"):
        pass
    print(f"{progress.images} images, loss {progress.loss:.3f}")
    print(eqm.tasks.generate(eqm.from_pretrained("runs/tiny-conv"), count=4))


if __name__ == "__main__":
    main()
