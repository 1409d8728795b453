from .config import DataConfig
from .images import Images, digits, open_images
from .loading import Share, shares
from .order import batch_indices
from .source import Source

__all__ = [
    "DataConfig",
    "Images",
    "Share",
    "Source",
    "batch_indices",
    "digits",
    "open_images",
    "shares",
]
