"""Metrics of samples, restored images and anomaly scores, as functions of tensors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
