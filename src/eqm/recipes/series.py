"""The recipe for time series."""

from __future__ import annotations

from eqm.data.config import DataConfig
from eqm.models.config import UNetConfig
from eqm.sampling.settings import Sampling
from eqm.train.config import ObjectiveConfig, OptimizerConfig, TrainConfig

SERIES = TrainConfig(
    name="series",
    model=UNetConfig(shape=(1, 80), patch=2, width=32, multipliers=(1, 2), blocks=2, heads=4),
    data=DataConfig("glucose", length=80),
    objective=ObjectiveConfig(scale=1.0),
    optimizer=OptimizerConfig(
        name="muon",
        learning_rate=4e-3,
        warmup=10_000,
        schedule="linear",
        cooldown=0.5,
        clip=1.0,
        ema_halflife=50_000,
    ),
    sampling=Sampling(step_size=0.08, path_length=2.0),
    images=200_000,
    batch_size=256,
    eval_every=50_000,
    precision="float32",
    threads=1,
)

DESCRIPTIONS = {
    "series": "Windows of time series, here of blood glucose, to fill gaps and continue them; needs eqm[data]; four "
    "minutes on one core.",
}
