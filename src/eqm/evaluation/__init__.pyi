from .comparison import Comparison, Difference, compare
from .evaluate import evaluate, evaluate_each
from .metrics import MetricInput, MissingInputError
from .open_samples import open_images, open_reference, open_samples, suitable_features
from .protocol import FeatureSpec, Measurement, Protocol, SampleSet
from .report import Report, require_suffix, write
from .samples import Batch, Samples, drawn, from_source
from .statistics import Settings, Statistics, gather, open_statistics, save_statistics

__all__ = [
    "Batch",
    "Comparison",
    "Difference",
    "FeatureSpec",
    "Measurement",
    "MetricInput",
    "MissingInputError",
    "Protocol",
    "Report",
    "SampleSet",
    "Samples",
    "Settings",
    "Statistics",
    "compare",
    "drawn",
    "evaluate",
    "evaluate_each",
    "from_source",
    "gather",
    "open_images",
    "open_reference",
    "open_samples",
    "open_statistics",
    "require_suffix",
    "save_statistics",
    "suitable_features",
    "write",
]
