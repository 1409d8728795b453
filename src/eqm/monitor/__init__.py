"""What a training run shows while it trains: progress bar, log, validation loss, previews, trackers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
