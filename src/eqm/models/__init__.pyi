from . import official
from .config import MLPConfig, NetworkConfig, TransformerConfig, UNetConfig
from .cost import Cost, cost
from .inference import Frozen, for_inference
from .mlp import MLP
from .network import Network, build, load_matching
from .presets import PRESETS, preset
from .pretrained import from_pretrained, push_to_hub, save_pretrained, with_energy
from .transformer import Transformer
from .unet import UNet

__all__ = [
    "MLP",
    "PRESETS",
    "Cost",
    "Frozen",
    "MLPConfig",
    "Network",
    "NetworkConfig",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "build",
    "cost",
    "for_inference",
    "from_pretrained",
    "load_matching",
    "official",
    "preset",
    "push_to_hub",
    "save_pretrained",
    "with_energy",
]
