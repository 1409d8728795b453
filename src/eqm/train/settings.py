"""How weights are stepped and averaged: settings with defaults; imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

WIDEST = 12**-0.5
"""A power-function average of relative width up to this one has an exponent of at least 0."""


def ema_halflife(decay: float, batch_size: int) -> float:
    """The half-life in images of an average that keeps the share `decay` of itself a batch.

    >>> round(ema_halflife(0.5, 256), 6)
    256.0
    """
    return batch_size * math.log(2) / -math.log(decay)


PAPER_EMA_HALFLIFE = ema_halflife(0.9999, 256)
"""Of the paper (arXiv 2510.02300), together with `ema_ramp` 0: .9999 a batch of 256, 1.77 million
images."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are stepped, and which averages of them are kept."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW for all weights, or Muon for the matrices and kernels of hidden layers and AdamW for the
    rest."""
    learning_rate: float = 1e-4
    """The highest, after the warm-up; Muon's is scaled to move weights as far as AdamW's would."""
    warmup: int = 0
    """Images over which the learning rate rises from 0."""
    schedule: Literal["constant", "cosine", "linear", "sqrt", "inverse-sqrt"] = "constant"
    """How the learning rate falls: not at all; to 0 at the end of the run along a cosine, a line,
    or 1 - sqrt; or for ever, as 1 / sqrt(images)."""
    cooldown: float = 1.0
    """Share of the run, at its end, over which the cosine, line or 1 - sqrt falls; constant before."""
    hold: int = 1_000_000
    """Images after which inverse-sqrt sets in."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW: what its means of gradients and of their squares keep a step."""
    eps: float = 1e-8
    """Of AdamW: added to the root of the mean square."""
    momentum: float = 0.95
    """Of Muon: what its mean of gradients keeps a step."""
    weight_decay: float = 0.0
    """Decoupled, of matrices and kernels; biases, gains and embeddings are left alone."""
    clip: float = 0.0
    """Largest norm of the gradient of all weights; 0 does not clip."""
    ema_halflife: float = 1_000_000
    """Images after which a weight counts half in the moving average that is sampled."""
    ema_ramp: float = 0.1
    """The half-life never exceeds this share of the images seen, so that a short run forgets its
    random beginning; 0 for the same half-life from the start."""
    ema_sigma_rel: tuple[float, ...] = ()
    """Relative widths (sigma_rel) of power-function averages to keep besides, such as 0.05 0.1, for
    `eqm ema` to make any other from; each costs the memory of the weights."""
    ema_every: int = 0
    """Images between snapshots of them in the folder `averages`; 0 takes a sixteenth of the run."""

    def __post_init__(self) -> None:
        def check(name: str, holds: bool, expected: str) -> None:
            if not holds:
                raise ValueError(f"optimizer.{name} must {expected}; got {getattr(self, name)}")

        for name in ("learning_rate", "eps", "ema_halflife"):
            check(name, 0 < getattr(self, name) < math.inf, "be positive, and finite")
        for name in ("warmup", "hold", "weight_decay", "clip", "ema_ramp", "ema_every"):
            check(name, 0 <= getattr(self, name) < math.inf, "not be negative, but finite")
        check("cooldown", 0 < self.cooldown <= 1, "be a share of the run, above 0 and at most 1")
        check("betas", all(0 <= beta < 1 for beta in self.betas), "lie in [0, 1)")
        check("momentum", 0 <= self.momentum < 1, "lie in [0, 1)")
        check(
            "ema_sigma_rel",
            all(0 < width < WIDEST for width in self.ema_sigma_rel),
            f"lie between 0 and {WIDEST:.3f}",
        )
        check(
            "ema_sigma_rel",
            len(set(self.ema_sigma_rel)) == len(self.ema_sigma_rel),
            "be different from one another",
        )
