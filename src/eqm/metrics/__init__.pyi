from .bootstrap import Interval, bootstrap
from .detection import auroc
from .features import Classifier, accuracy, embed, train_classifier
from .frechet import Moments, frechet_distance
from .neighbours import Nearest, nearest_distances

__all__ = [
    "Classifier",
    "Interval",
    "Moments",
    "Nearest",
    "accuracy",
    "auroc",
    "bootstrap",
    "embed",
    "frechet_distance",
    "nearest_distances",
    "train_classifier",
]
