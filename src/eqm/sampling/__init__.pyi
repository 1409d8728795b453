from .diagnosis import check_sampling, diagnose
from .labels import chosen_labels, class_names, label_number
from .model import Model, ModelInfo, check_time_invariant, describe
from .settings import Sampling
from .start import Start, guided, prepare, starting_noise

__all__ = [
    "Model",
    "ModelInfo",
    "Sampling",
    "Start",
    "check_sampling",
    "check_time_invariant",
    "chosen_labels",
    "class_names",
    "describe",
    "diagnose",
    "guided",
    "label_number",
    "prepare",
    "starting_noise",
]
