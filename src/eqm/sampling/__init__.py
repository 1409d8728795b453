"""How a model is sampled: stored settings, labels, and the start of a descent."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
