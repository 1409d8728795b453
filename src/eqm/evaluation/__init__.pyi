from .comparison import Comparison, Difference, compare
from .evaluate import evaluate, evaluate_each
from .measures import METRICS
from .open_samples import open_images, open_reference, open_samples, suitable_features
from .protocol import FeatureSpec, Measurement, Protocol, SampleSet
from .report import Report
from .samples import Batch, Samples, drawn, from_npz, from_source
from .statistics import Settings, Statistics, gather, open_statistics, save_statistics
from .writing import write

__all__ = [
    "METRICS",
    "Batch",
    "Comparison",
    "Difference",
    "FeatureSpec",
    "Measurement",
    "Protocol",
    "Report",
    "Samples",
    "Settings",
    "Statistics",
    "SampleSet",
    "compare",
    "drawn",
    "evaluate",
    "evaluate_each",
    "from_npz",
    "from_source",
    "gather",
    "open_images",
    "open_reference",
    "open_samples",
    "open_statistics",
    "save_statistics",
    "suitable_features",
    "write",
]
