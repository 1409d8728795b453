from .denoising import denoise
from .detect import matching_error
from .generation import generate, starting_noise
from .sampling import Sampling

__all__ = ["Sampling", "denoise", "generate", "matching_error", "starting_noise"]
