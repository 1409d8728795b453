from .autoencoder import Autoencoder, open_encoder
from .encoder import Encoder, Pixels
from .metadata import about_encoder, check_encoder, encoder_of

__all__ = [
    "Autoencoder",
    "Encoder",
    "Pixels",
    "about_encoder",
    "check_encoder",
    "encoder_of",
    "open_encoder",
]
