"""What `eqm eval` costs beside the network that sees the images.

    python benchmarks/evaluation.py --data fashion-mnist-test --features classifier:fashion-mnist
    python benchmarks/evaluation.py --data openmoji-32 --features lite0 --count 1000

The network alone sees batches that lie ready; `gather` reads, checks and rounds the images as well,
and keeps moments and rows. They take turns. Measuring comes once after that, however many images
there were.
"""

from __future__ import annotations

import time
from statistics import median

import torch
import tyro
from timing import interleaved, record, synchronize

from eqm.data import DataConfig, open_source
from eqm.devices import pick_device
from eqm.evaluation import Settings, evaluate, from_source, gather
from eqm.features import open_features


def main(
    data: str = "digits",
    features: str = "classifier:digits",
    count: int | None = None,
    rounds: int = 5,
    batch_size: int = 256,
    device: str = "cpu",
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints seconds of both, and the difference.

    Args:
        data: The images, as for `eqm eval`.
        features: What sees them.
        count: How many; all by default.
        rounds: How often.
        batch_size: Images at a time.
        device: Where the network is.
        threads: CPU threads.
        quick: One round of 300 images, nothing kept.
    """
    torch.set_num_threads(threads)
    count, rounds = (300, 1) if quick else (count, rounds)
    place = pick_device(device)
    source = open_source(DataConfig(data))
    samples, eyes = from_source(source, count=count), open_features(features, device=place)
    settings = Settings(batch_size=batch_size)
    ready = [batch.images.to(place) for batch in samples.batches(batch_size)]

    def network() -> None:
        with torch.no_grad():
            for images in ready:
                eyes(images)

    name = f"evaluation-{data}-{features.replace(':', '-')}"
    with record(name, f"eqm eval of {data} through {features}", keep=not quick):
        gathering = {"network alone": network, "gather": lambda: gather(samples, [eyes], settings)}
        seconds = interleaved(gathering, rounds, place)
        more = [100 * (b / a - 1) for a, b in zip(*seconds.values(), strict=True)]
        found = gather(samples, [eyes], settings)[0]
        began = time.perf_counter()
        evaluate(found, found, [eyes], settings=settings)
        synchronize(place)
        measuring = time.perf_counter() - began
        print(
            f"{len(samples):,} images of shape {source.shape}, batches of {batch_size}, on {place}.\n"
        )
        print("| | seconds, median of rounds |\n|---|---|")
        for what, times in seconds.items():
            print(f"| {what} | {median(times):.2f} |")
        print(f"| all metrics after that, once | {measuring:.2f} |\n")
        print(
            f"gather takes {median(more):+.1f} % of the network ({min(more):+.1f} .. {max(more):+.1f})."
        )


if __name__ == "__main__":
    tyro.cli(main)
