from .detection import auroc
from .frechet import Moments, frechet_distance
from .neighbours import Nearest, nearest_distances

__all__ = ["Moments", "Nearest", "auroc", "frechet_distance", "nearest_distances"]
