from .detection import auroc
from .features import Classifier, accuracy, embed, train_classifier
from .frechet import Moments, frechet_distance
from .neighbours import Nearest, nearest_distances

__all__ = [
    "Classifier",
    "Moments",
    "Nearest",
    "accuracy",
    "auroc",
    "embed",
    "frechet_distance",
    "nearest_distances",
    "train_classifier",
]
