"""Recipes for small pictures, and the choices for pictures of your own."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from eqm.data.config import DataConfig
from eqm.models.config import MLPConfig, NetworkConfig, TextConfig, UNetConfig
from eqm.registry import lookup, names
from eqm.sampling.settings import Sampling
from eqm.schema import convert
from eqm.train.config import ObjectiveConfig, OptimizerConfig, TrainConfig

if TYPE_CHECKING:
    from eqm.data import Source

TRAINING, FINETUNING = (500, 100_000, 2_000_000), (100, 20_000, 500_000)
"""How often each picture is seen, and the least and most images in all."""
LARGE = 128
"""Above this longer side, in pixels, latents are recommended."""

SMALL = UNetConfig(
    shape=(1, 28, 28),
    num_classes=10,
    patch=2,
    width=48,
    multipliers=(1, 2),
    blocks=2,
    heads=4,
    positions=True,
)
MNIST_5K = TrainConfig(
    name="mnist-5k",
    model=SMALL,
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
    model=replace(SMALL, shape=(1, 64, 64), num_classes=0, patch=4, width=64),
    data=DataConfig("elpv", size=64, classes=("functional",), labels=False, flip=True),
    optimizer=replace(MNIST_5K.optimizer, learning_rate=4e-3),
    sampling=replace(MNIST_5K.sampling, guidance=1.0),
    images=200_000,
    batch_size=64,
)

OPENMOJI = replace(
    FASHION_MNIST,
    name="openmoji-32",
    model=replace(
        SMALL, shape=(3, 32, 32), num_classes=101, patch=1, width=64, multipliers=(1, 2, 2)
    ),
    data=DataConfig("openmoji-32", val_fraction=0.0),
    optimizer=ELPV.optimizer,
    images=2_500_000,
    batch_size=256,
)

CIFAR10 = replace(
    OPENMOJI,
    name="cifar10",
    model=replace(SMALL, shape=(3, 32, 32), width=64, multipliers=(1, 2, 2)),
    data=DataConfig("hf:uoft-cs/cifar10", val_fraction=0.0, flip=True),
    images=1_500_000,
    batch_size=128,
)
CIFAR10_FLOW = replace(
    CIFAR10,
    name="cifar10-flow",
    model=replace(CIFAR10.model, noise_conditioning=True),
    objective=ObjectiveConfig(decay="constant", scale=1.0),
    sampling=Sampling(
        rule="gradient-descent", step_size=0.04, path_length=1.0, guidance=CIFAR10.sampling.guidance
    ),
)
CIFAR10_DOT = replace(
    CIFAR10, name="cifar10-dot", objective=replace(CIFAR10.objective, energy="dot")
)

# On a CPU an MLP sees nine times as many pictures an hour as a small U-Net, and learns far more of the words.
EMOJI_TEXT = replace(
    OPENMOJI,
    name="emoji-text",
    model=MLPConfig(
        shape=(3, 32, 32),
        num_classes=1,  # as many as the captions have words
        width=1024,
        skip=True,
        text=TextConfig("vocabulary", length=24, depth=0),
    ),
    data=DataConfig("emoji", val_fraction=0.0, size=32),
    optimizer=replace(OPENMOJI.optimizer, name="adamw", learning_rate=1e-3, warmup=20_000),
    sampling=replace(OPENMOJI.sampling, guidance=3.0),
    images=2_400_000,
    compile="off",
    checkpoint_every=200_000,
    eval_every=200_000,
)

FOLDER = replace(
    OPENMOJI,
    name="folder",
    # 1 class means as many as the pictures have.
    model=UNetConfig(
        (3, 64, 64), num_classes=1, width=32, multipliers=(1, 2, 4), heads=4, positions=True
    ),
    data=DataConfig("pictures", val_fraction=0.0, size=-1, channels=-1, flip=True),
    images=-1,
    batch_size=64,
    checkpoint_every=25_000,  # for slow laptops
    eval_every=25_000,
)

FINETUNE = replace(
    FOLDER,
    name="finetune",
    init_from="openmoji-32",
    optimizer=replace(
        FOLDER.optimizer, learning_rate=2e-3, warmup=2_000, cooldown=1.0, ema_halflife=5_000
    ),
    checkpoint_every=5_000,
    eval_every=5_000,
)

DESCRIPTIONS = {
    "mnist-5k": "5,000 digits of MNIST, 28x28, 10 classes; needs eqm[data]; half an hour on one core.",
    "fashion-mnist": "60,000 clothes, 28x28, 10 classes; 45 minutes on two cores.",
    "openmoji-32": "Emoji, 32x32, 101 classes; needs eqm[data]; four minutes on an H200.",
    "emoji-text": "Emoji from words, 32x32 in five styles; `eqm data download emoji` first; an hour on one core.",
    "cifar10": "CIFAR-10, 32x32 in colour, 10 classes; three and a half hours on one core. Not yet trained.",
    "cifar10-flow": "The same pictures by noise-conditioned flow matching, the baseline.",
    "cifar10-dot": "The same pictures with an explicit dot-product energy (EqM-E).",
    "elpv": "Intact solar cells, 64x64, to detect defects; needs eqm[data]; half an hour on one core.",
    "folder": "Your own pictures: set --data.path. Sizes and images are chosen for them.",
    "finetune": "A trained model, on your own pictures: set --data.path and --init-from.",
}


def choose_data(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The config with `data.size` and `data.channels` chosen where they are -1, and what was chosen.

    The size is 64, or 32 if half of the pictures have a shorter side under 64. The channels are 1 if
    all pictures are grey, otherwise 3. With `init_from`, size, channels, network, objective and
    sampling are those of the trained model, unless they were changed. Raises ValueError if the pictures
    or the trained model cannot be opened.
    """
    picks: list[str] = []
    if config.init_from and config.model == FINETUNE.model:
        config, picks = _as_trained(config)
    asked = config.data
    if -1 not in (asked.size, asked.channels):
        return config, [*picks, *_flipping(config)] if picks else []
    from eqm.data.open_source import files_at, opens_arrays
    from eqm.data.pictures import look
    from eqm.data.source import MissingDataError

    if asked.path == FOLDER.data.path and not Path(asked.path).exists():
        raise MissingDataError(
            f"the recipe {config.name} needs pictures; got no data.path: add --data.path FOLDER"
        )
    if opens_arrays(asked):  # arrays have a fixed size
        data = replace(asked, size=max(asked.size, 0), channels=max(asked.channels, 0))
        config = replace(config, data=data)
        return config, [*picks, "size and channels are those of the arrays", *_flipping(config)]
    files = files_at(asked)
    read, _ = look(files, asked)
    found = list(read.values())
    if not found:
        raise ValueError(f"{asked.path}: none of {len(files.names):,} pictures can be read")
    typical = median(min(header.width, header.height) for header in found)
    suits: dict[str, Any] = {
        # Features see pictures whole.
        "size": 0 if asked.features else 64 if typical >= 64 else 32,
        # Transparent pictures are put on white: opacity is rarely what is to be learnt.
        "channels": 1 if {header.channels for header in found} == {1} else 3,
    }
    suits = {name: value for name, value in suits.items() if getattr(asked, name) == -1}
    config = replace(config, data=replace(asked, **suits))
    classes = f"{len(files.class_names):,} classes" if files.class_names else "no classes"
    chosen = ", ".join(f"data.{name} {value}" for name, value in suits.items())
    return config, [
        *picks,
        f"{len(found):,} readable pictures, {classes}, median shorter side {typical:g} pixels",
        *([chosen] if chosen else []),
        *_flipping(config),
    ]


def choose_words(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The config of a run with captions: `data.captions` auto where the network takes sentences, a vocabulary where
    captions are asked for; and what was chosen."""
    from eqm.models import read_config

    takes = bool(config.model.text.encoder)
    if config.init_from and config.model == FINETUNE.model:  # the network will be the trained one
        takes = bool(read_config(config.init_from)[0].text.encoder)
    elif config.data.captions and not takes:
        text = replace(config.model.text, encoder="vocabulary")
        chosen = "model.text.encoder vocabulary: the words of the captions are trained along"
        return replace(config, model=replace(config.model, text=text)), [chosen]
    if takes and not config.data.captions and config.data.path not in names("source"):
        config = replace(config, data=replace(config.data, captions="auto", labels_from=""))
    return config, []


def _as_trained(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The config with the network, sizes, objective and sampling of the model `init_from`."""
    from eqm.models import from_pretrained

    trained = from_pretrained(config.init_from)
    network, metadata = trained.config, trained.metadata
    if len(network.shape) != 3 or network.shape[1] != network.shape[2]:
        raise ValueError(
            f"init_from must be a model of square pictures; got samples of shape {network.shape}: "
            "fine-tune it from Python, with eqm.train.train"
        )
    data = config.data
    if data.size == -1:
        data = replace(data, size=network.shape[1])
    if data.channels == -1:
        data = replace(data, channels=network.shape[0])
    config = replace(config, data=data, model=network)
    if config.objective == FINETUNE.objective:
        known = {f"objective.{field.name}": field.name for field in fields(ObjectiveConfig)}
        saved = metadata.get("training", {}).items()
        changes = {known[key]: value for key, value in saved if key in known}
        for part in ("decay", "gamma", "coupling"):
            lookup(part, str(changes.get(part, getattr(FINETUNE.objective, part))))  # no import
        config = replace(config, objective=convert(changes, ObjectiveConfig, "the model's "))
    if config.sampling == FINETUNE.sampling:
        sampling = replace(Sampling.of(metadata), multistep_coefficients=())
        config = replace(config, sampling=sampling)
    return config, [f"network, objective and sampling of {config.init_from}, {network.shape}"]


def choose_network(config: TrainConfig, pictures: Source) -> tuple[TrainConfig, list[str]]:
    """The config with `images` chosen if it is -1, and the network of `folder`, and what was chosen.

    Each picture is seen 500 times, or 100 times when fine-tuning, within bounds for the images in
    all. The network halves its grid twice, and further until it is at most 16 wide, as far as the
    sides can be halved. It has attention if the grid is at most 32 wide. Above 64 pixels, a place of
    the first grid is a square of 2x2 pixels. For signals, videos and points the network keeps its other sizes.
    Raises ValueError for data that the network does not take.
    """
    of_images = len(pictures.shape) == 3
    if len(pictures.shape) != len(config.model.shape):
        try:
            config = config.suited_to(pictures)
        except ValueError as error:
            raise ValueError(
                f"the network of the recipe {config.name} does not take samples of shape {pictures.shape}, as "
                f"{pictures.name} has ({error}): choose another one, such as --model mlp"
            ) from None
    picks = []
    if config.images == -1:
        passes, fewest, most = FINETUNING if config.init_from else TRAINING
        wanted = passes * len(pictures)
        config = replace(config, images=min(max(wanted, fewest), most))
        why = f"{passes} times {len(pictures):,} pictures"
        if config.images != wanted:
            limit = "least" if wanted < fewest else "most"
            why = f"the {limit} of this recipe ({why} would be {wanted:,})"
        picks.append(f"images {config.images:,}: {why}; batch_size {config.batch_size}")
    asked = config.model
    if (
        isinstance(asked, UNetConfig)
        and of_images
        and not config.init_from
        and _sizes(asked) == _sizes(FOLDER.model)
    ):
        height, width = pictures.shape[1:]
        longest, divisor = max(height, width), math.gcd(height, width)
        patch = 2 if longest > 64 and divisor % 2 == 0 else 1
        halvings, grid = 0, longest / patch
        while divisor % (patch * 2 ** (halvings + 1)) == 0 and (halvings < 2 or grid > 16):
            halvings, grid = halvings + 1, grid / 2
        levels = tuple(min(2**level, 4) for level in range(halvings + 1))
        heads = asked.heads if grid <= 32 else 0
        # With the shape of the pictures, as that of the recipe may not fit the levels.
        model = replace(
            asked,
            shape=pictures.shape,
            patch=patch,
            multipliers=levels,
            heads=heads,
        )
        config = replace(config, model=model)
        picks.append(
            f"model.patch {patch}, model.multipliers {' '.join(map(str, levels))}, "
            f"model.heads {heads}; model.width {model.width}"
            + (": on a GPU set 64, which learns more" if model.width < 64 else "")
        )
        if longest > LARGE:
            picks.append(
                f"pictures of {width}x{height} pixels are learnt faster as latents: `eqm encode "
                f"{config.data.path} --vae VAE --output latents`, then --data.path latents"
            )
    return config, picks


def _flipping(config: TrainConfig) -> list[str]:
    if not config.data.flip or config.data.features:
        return ["pictures are not flipped"]
    return ["pictures are flipped at random: set --data.no-flip if left and right matter"]


def _sizes(model: NetworkConfig) -> list[Any]:
    """The sizes of a network that the recipe `folder` chooses, if none of them was set."""
    names = ("shape", "patch", "multipliers", "blocks", "heads")
    return [getattr(model, name, None) for name in names]
