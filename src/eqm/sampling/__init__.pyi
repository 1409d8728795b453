from .diagnosis import check_sampling, diagnose
from .labels import chosen_labels, class_names, label_number
from .settings import Sampling
from .start import Model, starting_noise

__all__ = [
    "Model",
    "Sampling",
    "check_sampling",
    "chosen_labels",
    "class_names",
    "diagnose",
    "label_number",
    "starting_noise",
]
