from .checkpoint import keep_best, load, save
from .config import ObjectiveConfig, OptimizerConfig, TrainConfig
from .interrupts import Interrupted
from .loop import Progress, train
from .state import TrainingState, start
from .step import make_step

__all__ = [
    "Interrupted",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Progress",
    "TrainConfig",
    "TrainingState",
    "keep_best",
    "load",
    "make_step",
    "save",
    "start",
    "train",
]
