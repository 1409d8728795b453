from .batches import Batch, batch_indices, batches
from .builtin import digits, points
from .config import DataConfig
from .dataset import as_dataset, as_source
from .encoding import EncodingProgress, encode
from .images import Images, Tensors
from .latents import Latents, check_latents, is_latents, open_latents
from .open_source import Report, check, open_source
from .pictures import Pictures
from .source import MissingDataError, Source, Subset, class_names, split

__all__ = [
    "Batch",
    "DataConfig",
    "EncodingProgress",
    "Images",
    "Latents",
    "MissingDataError",
    "Pictures",
    "Report",
    "Source",
    "Subset",
    "Tensors",
    "as_dataset",
    "as_source",
    "batch_indices",
    "batches",
    "check",
    "check_latents",
    "class_names",
    "digits",
    "encode",
    "is_latents",
    "open_latents",
    "open_source",
    "points",
    "split",
]
