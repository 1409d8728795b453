"""The paper's settings for ImageNet at 256x256, as latents of 4x32x32."""

from __future__ import annotations

from dataclasses import replace

from eqm.data.config import DataConfig
from eqm.models.config import preset
from eqm.sampling.settings import Sampling
from eqm.train.config import PAPER_EMA_HALFLIFE, ObjectiveConfig, OptimizerConfig, TrainConfig

IMAGES = 1_281_167
"""Images in an epoch of ImageNet."""


def _recipe(size: str, patch: int) -> TrainConfig:
    headline = (size, patch) == ("xl", 2)
    return TrainConfig(
        name=f"imagenet256-{size}-{patch}",
        model=preset(f"EqM-{size.upper()}/{patch}", shape=(4, 32, 32), num_classes=1000),
        data=DataConfig("imagenet256-latents", val_fraction=0.0, flip=True),
        optimizer=OptimizerConfig(learning_rate=1e-4, ema_halflife=PAPER_EMA_HALFLIFE, ema_ramp=0),
        # The best result: 1,400 epochs, guidance. The comparisons: 80 epochs, no guidance. All sample
        # with 250 steps, which are 249 updates.
        sampling=Sampling(
            rule="nesterov-lookahead" if headline else "gradient-descent",
            step_size=0.0017 if headline else 0.003,
            path_length=0.0017 * 249 if headline else 0.003 * 249,
            guidance=1.5 if headline else 1.0,
        ),
        images=(1400 if headline else 80) * IMAGES,
        batch_size=256,
        precision="bfloat16",
        compile="auto",
        checkpoint_every=IMAGES,
        eval_every=IMAGES,
    )


LATENTS = {
    recipe.name: recipe
    for recipe in (_recipe(size, patch) for size in ("s", "b", "l", "xl") for patch in (2, 4, 8))
}
LATENTS["imagenet256-b-2-dot"] = replace(
    LATENTS["imagenet256-b-2"],
    name="imagenet256-b-2-dot",
    objective=ObjectiveConfig(energy="dot"),
)

DESCRIPTIONS = {
    name: f"The paper's {recipe.name.removesuffix('-dot').removeprefix('imagenet256-').upper().replace('-', '/')}"
    + (" as an explicit energy" if name.endswith("-dot") else "")
    + f" on ImageNet latents, {recipe.images // IMAGES:,} epochs; set --data.path. Not yet trained."
    for name, recipe in LATENTS.items()
}
