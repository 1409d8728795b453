"""Recipes for sound, video and points in space."""

from __future__ import annotations

from dataclasses import replace

from eqm.data.config import DataConfig
from eqm.models.config import MLPConfig, UNetConfig
from eqm.recipes.pixels import MNIST_5K
from eqm.sampling.settings import Sampling
from eqm.train.config import TrainConfig

SPOKEN_DIGITS = replace(
    MNIST_5K,
    name="spoken-digits",
    # (1, frames, 1, bands): the middle axis has one place.
    model=UNetConfig(
        shape=(1, 48, 1, 64),
        num_classes=10,
        patch=(2, 1, 2),
        kernel=(3, 1, 3),
        stride=(2, 1, 2),
        width=32,
        multipliers=(1, 2, 2),
        blocks=2,
        heads=4,
        positions=True,
    ),
    data=DataConfig("spoken-digits", val_fraction=0.0, sound="log-mel"),
    images=160_000,
    batch_size=64,
    compile="off",
)

MOVING_DIGITS = replace(
    MNIST_5K,
    name="moving-digits",
    # Four frames of 2x2 pixels are a patch: 16 values, which pass through a width of 32.
    model=UNetConfig(
        shape=(1, 16, 32, 32),
        num_classes=10,
        patch=(4, 2, 2),
        width=32,
        multipliers=(1, 2, 4),
        blocks=1,
        heads=4,
        positions=True,
    ),
    data=DataConfig("moving-digits"),
    images=150_000,
    batch_size=64,
    compile="off",
)

POINTS = TrainConfig(
    name="points",
    model=MLPConfig(shape=(3,), width=128, depth=3),
    data=DataConfig("trefoil"),
    objective=MNIST_5K.objective,
    optimizer=replace(MNIST_5K.optimizer, name="adamw", learning_rate=2e-3, ema_halflife=20_000),
    sampling=Sampling(step_size=0.1, path_length=2.0),
    images=1_200_000,
    batch_size=256,
    eval_every=400_000,
    precision="float32",
    threads=1,
)

DESCRIPTIONS = {
    "points": "Points on a knot in space; a minute on one core.",
    "spoken-digits": "Ten spoken digits by six speakers, as spectrograms; needs eqm[sound]; 20 minutes on one core.",
    "moving-digits": "Videos of digits that bounce, 16 frames of 32x32; needs eqm[data]. Not yet trained.",
}
