from .calibration import Calibration
from .composition import Composition, compose
from .denoising import denoise, estimate_gamma, estimate_sigma
from .detect import EqmDetector
from .estimator import EqmOutlierDetector
from .generation import draw, gather, generate, trajectory
from .interpolation import interpolate, vary
from .operators import Blur, Downsample, Grey, Inpaint, Operator
from .restoration import restore
from .scores import matching_error
from .tuning import Trial, Tuning, tune

__all__ = [
    "Blur",
    "Calibration",
    "Composition",
    "Downsample",
    "EqmDetector",
    "EqmOutlierDetector",
    "Grey",
    "Inpaint",
    "Operator",
    "Trial",
    "Tuning",
    "compose",
    "denoise",
    "draw",
    "estimate_gamma",
    "estimate_sigma",
    "gather",
    "generate",
    "interpolate",
    "matching_error",
    "restore",
    "trajectory",
    "tune",
    "vary",
]
