from .callbacks import Callback, Metrics, Tracker
from .log import read_log
from .running import Monitor, make_monitor, monitored, run

__all__ = [
    "Callback",
    "Metrics",
    "Monitor",
    "Tracker",
    "make_monitor",
    "monitored",
    "read_log",
    "run",
]
