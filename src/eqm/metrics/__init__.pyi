from .bootstrap import Interval, bootstrap
from .detection import auroc
from .frechet import Moments, frechet_distance
from .neighbours import Nearest, nearest_distances

__all__ = [
    "Interval",
    "Moments",
    "Nearest",
    "auroc",
    "bootstrap",
    "frechet_distance",
    "nearest_distances",
]
