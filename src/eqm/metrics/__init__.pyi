from .bootstrap import Interval, bootstrap
from .detection import auroc, average_precision, fpr_at_tpr
from .frechet import Moments, frechet_distance
from .neighbours import Nearest, nearest_distances

__all__ = [
    "Interval",
    "Moments",
    "Nearest",
    "auroc",
    "average_precision",
    "bootstrap",
    "fpr_at_tpr",
    "frechet_distance",
    "nearest_distances",
]
