from .advice import advise
from .composition import Composition, compose
from .denoising import denoise
from .detect import matching_error
from .generation import Model, draw, gather, generate, starting_noise, watch
from .interpolation import interpolate, vary
from .sampling import Sampling
from .tuning import Trial, Tuning, trials, tune

__all__ = [
    "Composition",
    "Model",
    "Sampling",
    "Trial",
    "Tuning",
    "advise",
    "compose",
    "denoise",
    "draw",
    "gather",
    "generate",
    "interpolate",
    "matching_error",
    "starting_noise",
    "trials",
    "tune",
    "vary",
    "watch",
]
