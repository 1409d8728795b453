"""The latent path end to end: pictures per second of encoding, training, sampling and decoding.

    python benchmarks/latents.py --vae taef2:../shared/data/taef2 --data ../shared/data/imagenette128-val.zip

`eqm encode` alternates with calls of the bare autoencoder on the same pictures in memory. Seconds are CPU time of
all threads, which does not depend on other processes; that of reading pictures and writing files is in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import tyro
from timing import record
from torch.nn import Identity

import eqm
from eqm.data import DataConfig, Subset, encode, open_latents, open_source
from eqm.encoders import open_encoder
from eqm.models.config import TransformerConfig
from eqm.randomness import SampleRandom
from eqm.recipes import RECIPES
from eqm.sampling import Sampling
from eqm.tasks import generate
from eqm.train import train


def main(
    vae: str = "pixels",
    data: str = "digits",
    images: int = 128,
    batch_size: int = 32,
    rounds: int = 3,
    width: int = 192,
    depth: int = 6,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/latents.md.

    Args:
        vae: The autoencoder, such as taef2:FOLDER.
        data: Pictures to encode.
        images: Number of pictures of each measurement.
        batch_size: Pictures computed at once.
        rounds: Measurements of encoding; medians are printed.
        width: Width of the transformer that is trained.
        depth: Its blocks.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        images, batch_size, rounds, width, depth = 8, 4, 1, 16, 1
    torch.set_num_threads(1)
    whole = open_source(DataConfig(data, cache_mb=0))  # every round reads the files
    rows = torch.linspace(0, len(whole) - 1, images).long()
    labels = None if whole.labels is None else whole.labels[rows]
    source = Subset(whole, rows, labels, whole.num_classes)
    pixels = source.batch(torch.arange(images), SampleRandom(0, torch.arange(images)))
    encoder = open_encoder(vae)
    network = getattr(encoder, "network", Identity())
    with (
        TemporaryDirectory() as place,
        record("latents", "The latent path", keep=not quick),
    ):
        numbers = count()

        def bare() -> None:
            for part in pixels.split(batch_size):
                getattr(network, "encode", network)(part)

        def encoded() -> Path:
            folder = Path(place) / f"latents-{next(numbers)}"
            for _ in encode(source, encoder, folder, mirrored=False, batch_size=batch_size):
                pass
            return folder

        pairs = [(seconds(bare), seconds(encoded)) for _ in range(rounds + 1)][1:]
        latents = open_latents(Path(place) / "latents-0")
        size = sum(shard.bytes for shard in latents.manifest.shards)
        computed = (1 + encoder.posterior) * images * prod(latents.shape) * 2
        ratios = [after / before for before, after in pairs]
        config = replace(
            RECIPES["digits"],
            model=TransformerConfig(
                shape=latents.shape,
                num_classes=latents.num_classes,
                width=width,
                depth=depth,
                heads=width // 16,
            ),
            data=DataConfig(str(latents.folder)),
            sampling=Sampling("nesterov-lookahead", step_size=0.02, path_length=0.5, guidance=1.5),
            images=images,
            batch_size=batch_size,
            device="cpu",
        )
        run = Path(place) / "run"
        training = seconds(lambda: [None for _ in train(config, latents, run)])
        model = eqm.from_pretrained(run)
        drawn = []
        sampling = seconds(lambda: drawn.append(generate(model, count=images // 4).x))
        decoding = seconds(lambda: encoder.decode(drawn[0]))
        print(
            f"{images} pictures {tuple(source.shape)} of {Path(data).name}, latents {latents.shape} of"
        )
        print(
            f"{encoder.name.partition(':')[0]}, in batches of {batch_size}. The median of {rounds} rounds.\n"
        )
        print("| | pictures/s of CPU time |\n|---|---|")
        print(f"| the bare autoencoder, encoding | {images / median(a for a, _ in pairs):.1f} |")
        print(
            f"| `eqm encode`, with reading and writing | {images / median(b for _, b in pairs):.1f} |"
        )
        print(f"| training, width {width}, depth {depth} | {images / training:.1f} |")
        print(f"| sampling, 25 steps, guidance 1.5 | {images // 4 / sampling:.2f} |")
        print(f"| decoding | {images // 4 / decoding:.1f} |")
        print(
            f"\n`eqm encode` takes {median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f}) times as long as "
            f"the bare autoencoder.\nLatents take {size:,} bytes on disk, {size / computed:.3f} times the computed "
            f"{computed:,}."
        )


def seconds(run: Callable[[], object]) -> float:
    """CPU time of all threads."""
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    tyro.cli(main)
