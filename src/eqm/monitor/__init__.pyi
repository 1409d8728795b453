from .callbacks import Callback, Metrics
from .log import draw_curves, read_log
from .running import Monitor, make_monitor, monitored, run
from .throughput import duration
from .trackers import Tracker

__all__ = [
    "Callback",
    "Metrics",
    "Monitor",
    "Tracker",
    "draw_curves",
    "duration",
    "make_monitor",
    "monitored",
    "read_log",
    "run",
]
