from .callbacks import Callback, Metrics, Tracker
from .log import read_log
from .monitor import Monitor, make_monitor, monitored, run

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
