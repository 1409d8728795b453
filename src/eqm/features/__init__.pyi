from .classifier import Classifier, accuracy, embed, train_classifier
from .features import Activations, Features, from_module, open_features
from .inception import Inception, load_inception
from .lite0 import Lite0, load_lite0
from .pca import fit_pca

__all__ = [
    "Activations",
    "Classifier",
    "Features",
    "Inception",
    "Lite0",
    "accuracy",
    "embed",
    "fit_pca",
    "from_module",
    "load_inception",
    "load_lite0",
    "open_features",
    "train_classifier",
]
