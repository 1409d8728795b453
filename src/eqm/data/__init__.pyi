from .config import DataConfig
from .encoding import Encoded, encode
from .images import Images, digits, open_images
from .latents import Latents, check_latents, is_latents, open_latents
from .loading import Share, shares
from .order import batch_indices
from .source import Source

__all__ = [
    "DataConfig",
    "Encoded",
    "Images",
    "Latents",
    "Share",
    "Source",
    "batch_indices",
    "check_latents",
    "digits",
    "encode",
    "is_latents",
    "open_images",
    "open_latents",
    "shares",
]
