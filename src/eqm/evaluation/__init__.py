"""How good samples are: metrics, each with the settings that it was measured with."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
