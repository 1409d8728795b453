from .config import ObjectiveConfig, TrainConfig
from .log import follow
from .loop import Interrupted, Progress, train
from .settings import OptimizerConfig
from .state import TrainingState, load, save, start

__all__ = [
    "Interrupted",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Progress",
    "TrainConfig",
    "TrainingState",
    "follow",
    "load",
    "save",
    "start",
    "train",
]
