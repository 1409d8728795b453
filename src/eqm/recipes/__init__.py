"""Recipes: complete training settings by name; imports no torch."""

from __future__ import annotations

from dataclasses import replace

from eqm.data.config import DataConfig
from eqm.models.config import UNetConfig
from eqm.recipes import clips, latents, pixels, series
from eqm.registry import did_you_mean
from eqm.sampling.settings import Sampling
from eqm.train.config import ObjectiveConfig, OptimizerConfig, TrainConfig

DIGITS = TrainConfig(
    name="digits",
    model=UNetConfig(shape=(1, 8, 8), num_classes=10),
    data=DataConfig("digits"),
    optimizer=OptimizerConfig(learning_rate=4e-3, warmup=5_000, ema_halflife=20_000),
    sampling=Sampling(
        rule="nesterov-lookahead", step_size=0.02, path_length=0.6, gradient_ratio=0.1
    ),
    images=200_000,
    batch_size=128,
    eval_every=50_000,
    precision="float32",
    threads=1,
)

RECIPES = {
    "digits": DIGITS,
    "digits-dot": replace(DIGITS, name="digits-dot", objective=ObjectiveConfig(energy="dot")),
    "digits-flow": replace(
        DIGITS,
        name="digits-flow",
        model=replace(DIGITS.model, noise_conditioning=True),
        objective=ObjectiveConfig(decay="constant", scale=1.0),
        sampling=Sampling(rule="gradient-descent", step_size=0.05, path_length=1.0),
    ),
    **{
        recipe.name: recipe
        for module in (pixels, clips)
        for recipe in vars(module).values()
        if isinstance(recipe, TrainConfig)
    },
    **latents.LATENTS,
    "series": series.SERIES,
}
"""Every recipe by name."""

DESCRIPTIONS = {
    "digits": "Digits, 8x8, 10 classes; about a minute on one CPU core.",
    "digits-dot": "The same digits with an explicit dot-product energy (EqM-E).",
    "digits-flow": "The same digits by noise-conditioned flow matching, the baseline.",
    **pixels.DESCRIPTIONS,
    **clips.DESCRIPTIONS,
    **latents.DESCRIPTIONS,
    **series.DESCRIPTIONS,
}
"""A sentence about each recipe."""


def find_recipe(name: str) -> TrainConfig:
    """The recipe of that name. Raises ValueError if there is none."""
    if name in RECIPES:
        return RECIPES[name]
    hint = did_you_mean(name, RECIPES)
    raise ValueError(f"the recipe must be one of {', '.join(RECIPES)}; got {name!r}{hint}")
