"""The learning rate, a function of the images seen alone."""

from __future__ import annotations

import math

from eqm.train.settings import OptimizerConfig


def learning_rate_at(settings: OptimizerConfig, *, images: int, total: int) -> float:
    """The learning rate of the step that brings the images seen to `images`, of `total` in the run.

    The highest learning rate times min(1, images / warmup), and

    - constant: 1
    - cosine, linear, sqrt: (1 + cos(pi p)) / 2, 1 - p, 1 - sqrt(p), where p goes from 0 to 1 over
      the last `cooldown` of the run
    - inverse-sqrt: 1 / sqrt(max(1, images / hold))

    It counts the images after the step, so that the first step has a rate and the last one is 0
    (beyond `total` it stays 0). A run that is resumed with another `total` follows the schedule of
    the new one from there.

    A cooldown by 1 - sqrt follows arXiv 2405.18392, the inverse square root arXiv 2312.02696.

    >>> settings = OptimizerConfig(learning_rate=0.1, schedule="linear", cooldown=0.5)
    >>> [round(learning_rate_at(settings, images=n, total=8), 3) for n in (1, 4, 6, 8)]
    [0.1, 0.1, 0.05, 0.0]
    """
    rate = settings.learning_rate * min(1.0, images / max(settings.warmup, 1))
    fall = settings.cooldown * total
    progress = min(max((images - (total - fall)) / fall, 0.0), 1.0)
    match settings.schedule:
        case "constant":
            return rate
        case "cosine":
            return rate * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return rate * (1 - progress)
        case "sqrt":
            return rate * (1 - math.sqrt(progress))
        case "inverse-sqrt":
            return rate / math.sqrt(max(1.0, images / max(settings.hold, 1)))
