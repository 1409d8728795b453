"""Equilibrium Matching: train one time-invariant gradient field, and use it for everything.

The public names are listed in `__init__.pyi`. They load when first used, so that `import eqm` is light.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
