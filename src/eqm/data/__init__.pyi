from .images import Images, digits, open_images
from .order import batch_indices

__all__ = ["Images", "batch_indices", "digits", "open_images"]
