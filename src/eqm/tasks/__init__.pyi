from .advice import advise
from .denoising import denoise
from .detect import matching_error
from .generation import draw, gather, generate, starting_noise, watch
from .sampling import Sampling
from .tuning import Trial, Tuning, trials, tune

__all__ = [
    "Sampling",
    "Trial",
    "Tuning",
    "advise",
    "denoise",
    "draw",
    "gather",
    "generate",
    "matching_error",
    "starting_noise",
    "trials",
    "tune",
    "watch",
]
