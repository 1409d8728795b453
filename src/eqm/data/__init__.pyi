from .batches import Batch, batches
from .builtin import digits
from .checking import Report, check
from .config import DataConfig
from .encoding import Encoded, encode
from .images import Images
from .latents import Latents, check_latents, is_latents, open_latents
from .open_source import open_source
from .order import batch_indices
from .pictures import Pictures
from .points import Points, points
from .source import MissingDataError, Source
from .subset import Subset, class_names, split

__all__ = [
    "DataConfig",
    "Encoded",
    "Images",
    "Latents",
    "MissingDataError",
    "Subset",
    "Pictures",
    "Points",
    "Report",
    "Batch",
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
    "batches",
    "split",
]
