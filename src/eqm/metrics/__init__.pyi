from .bootstrap import Interval, bootstrap
from .detection import auroc, average_precision, fpr_at_tpr
from .distances import Nearest, nearest_distances
from .fidelity import psnr, ssim
from .frechet import (
    Extrapolated,
    Moments,
    frechet_at_infinity,
    frechet_distance,
    frechet_influence,
)
from .inception_score import inception_influence, inception_score
from .kid import Spread, kernel_distance, kernel_influence
from .prdc import (
    DensityCoverage,
    Overlap,
    PrecisionRecall,
    density_coverage,
    overlap,
    precision_recall,
)

__all__ = [
    "DensityCoverage",
    "Extrapolated",
    "Interval",
    "Moments",
    "Nearest",
    "Overlap",
    "PrecisionRecall",
    "Spread",
    "auroc",
    "average_precision",
    "bootstrap",
    "density_coverage",
    "fpr_at_tpr",
    "frechet_at_infinity",
    "frechet_distance",
    "frechet_influence",
    "inception_influence",
    "inception_score",
    "kernel_distance",
    "kernel_influence",
    "nearest_distances",
    "overlap",
    "precision_recall",
    "psnr",
    "ssim",
]
