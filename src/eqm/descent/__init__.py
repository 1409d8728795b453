"""Descending a field: rules (how to step), stops (when to end) and the loops that use them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
