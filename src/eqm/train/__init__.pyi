from .checkpoint import keep_best, load, save
from .config import ObjectiveConfig, TrainConfig
from .following import Watch, follow, watched, watching
from .interrupts import Interrupted
from .log import read_log
from .loop import Progress, train
from .settings import OptimizerConfig
from .sight import Sight, Tracker, Watcher
from .state import TrainingState, start
from .step import make_step

__all__ = [
    "Interrupted",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Progress",
    "Sight",
    "Tracker",
    "TrainConfig",
    "TrainingState",
    "Watch",
    "Watcher",
    "follow",
    "keep_best",
    "load",
    "make_step",
    "read_log",
    "save",
    "start",
    "train",
    "watched",
    "watching",
]
