from .classifier import Classifier, accuracy, embed, train_classifier
from .features import Activations, Features, from_module
from .opening import open_features

__all__ = [
    "Activations",
    "Classifier",
    "Features",
    "accuracy",
    "embed",
    "from_module",
    "open_features",
    "train_classifier",
]
