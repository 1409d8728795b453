from .checking import Report, check
from .config import DataConfig
from .encoding import Encoded, encode
from .images import Images
from .latents import Latents, check_latents, is_latents, open_latents
from .loading import Share, shares
from .named import digits
from .opening import open_source
from .order import batch_indices
from .parts import Part, class_names, split
from .pictures import Pictures
from .points import Points, points
from .source import MissingDataError, Source

__all__ = [
    "DataConfig",
    "Encoded",
    "Images",
    "Latents",
    "MissingDataError",
    "Part",
    "Pictures",
    "Points",
    "Report",
    "Share",
    "Source",
    "batch_indices",
    "check",
    "check_latents",
    "class_names",
    "digits",
    "encode",
    "is_latents",
    "open_latents",
    "open_source",
    "points",
    "shares",
    "split",
]
