from .config import ObjectiveConfig, OptimizerConfig, TrainConfig
from .following import Watch, follow, watched, watching
from .log import read_log
from .loop import Interrupted, Progress, train
from .sight import Sight, Tracker, Watcher
from .state import TrainingState, load, save, start

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
    "load",
    "read_log",
    "save",
    "start",
    "train",
    "watched",
    "watching",
]
