from .comparison import Comparison, Difference, compare
from .evaluate import evaluate, evaluate_each
from .measures import METRICS
from .opening import Reference, open_reference, open_samples, suitable_features
from .protocol import Measurement, Protocol, Subject
from .report import Report
from .samples import Batch, Samples, drawn, from_npz, from_source
from .statistics import Statistics, gather, open_statistics, save_statistics

__all__ = [
    "METRICS",
    "Batch",
    "Comparison",
    "Difference",
    "Measurement",
    "Protocol",
    "Reference",
    "Report",
    "Samples",
    "Statistics",
    "Subject",
    "compare",
    "drawn",
    "evaluate",
    "evaluate_each",
    "from_npz",
    "from_source",
    "gather",
    "open_reference",
    "open_samples",
    "open_statistics",
    "save_statistics",
    "suitable_features",
]
