from .advice import advise, foresee
from .calibration import Calibration
from .composition import Composition, compose
from .denoising import denoise, estimate_gamma, estimate_sigma
from .detect import EqmDetector, matching_error
from .estimator import EqmOutlierDetector
from .generation import Model, draw, gather, generate, starting_noise, watch
from .interpolation import interpolate, vary
from .operators import Blur, Downsample, Grey, Inpaint, Operator
from .restoration import restore
from .sampling import Sampling
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
    "Model",
    "Operator",
    "Sampling",
    "Trial",
    "Tuning",
    "advise",
    "compose",
    "denoise",
    "draw",
    "estimate_gamma",
    "estimate_sigma",
    "foresee",
    "gather",
    "generate",
    "interpolate",
    "matching_error",
    "restore",
    "starting_noise",
    "tune",
    "vary",
    "watch",
]
