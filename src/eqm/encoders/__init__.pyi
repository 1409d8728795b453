from .autoencoder import Autoencoder as Autoencoder
from .autoencoder import encoder_of as encoder_of
from .autoencoder import open_encoder as open_encoder
from .encoder import AboutEncoder as AboutEncoder
from .encoder import Encoder as Encoder
from .encoder import Pixels as Pixels
from .encoder import about_encoder as about_encoder
