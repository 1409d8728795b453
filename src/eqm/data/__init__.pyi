from .checking import Report, check
from .config import DataConfig
from .images import Images
from .loading import Share, shares
from .named import digits
from .opening import open_source
from .order import batch_indices
from .parts import Part, class_names, split
from .pictures import Pictures
from .points import Points, points
from .source import Source

__all__ = [
    "DataConfig",
    "Images",
    "Part",
    "Pictures",
    "Points",
    "Report",
    "Share",
    "Source",
    "batch_indices",
    "check",
    "class_names",
    "digits",
    "open_source",
    "points",
    "shares",
    "split",
]
