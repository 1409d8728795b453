"""The time of `eqm eval` beside the time of its feature network.

    python benchmarks/evaluation.py --data fashion-mnist-test --features classifier:fashion-mnist
    python benchmarks/evaluation.py --data openmoji-32 --features lite0 --count 1000

The network alone gets batches from memory. `gather` also reads, checks and rounds the images, and
keeps mean, covariance and feature vectors. The two alternate. The metrics are computed once after that.
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
    """Prints the seconds of both, and the difference.

    Args:
        data: The images, as for `eqm eval`.
        features: The features, as for `eqm eval`.
        count: Number of images; all by default.
        rounds: Number of measurements.
        batch_size: Images per batch.
        device: Device of the network.
        threads: CPU threads.
        quick: Measure one round of 300 images; write nothing.
    """
    torch.set_num_threads(threads)
    count, rounds = (300, 1) if quick else (count, rounds)
    place = pick_device(device)
    source = open_source(DataConfig(data))
    samples, network = from_source(source, count=count), open_features(features, device=place)
    settings = Settings(batch_size=batch_size)
    ready = [batch.images.to(place) for batch in samples.batches(batch_size)]

    def network_alone() -> None:
        with torch.no_grad():
            for images in ready:
                network(images)

    name = f"evaluation-{data}-{features.replace(':', '-')}"
    with record(name, f"eqm eval of {data} in {features} features", keep=not quick):
        gathering = {
            "network alone": network_alone,
            "gather": lambda: gather(samples, [network], settings),
        }
        seconds = interleaved(gathering, rounds, place)
        more = [100 * (b / a - 1) for a, b in zip(*seconds.values(), strict=True)]
        found = gather(samples, [network], settings)[0]
        began = time.perf_counter()
        evaluate(found, found, [network], settings=settings)
        synchronize(place)
        measuring = time.perf_counter() - began
        print(
            f"{len(samples):,} images of shape {source.shape}, batches of {batch_size}, on {place}.\n"
        )
        print("| | seconds (median) |\n|---|---|")
        for what, times in seconds.items():
            print(f"| {what} | {median(times):.2f} |")
        print(f"| all metrics | {measuring:.2f} |\n")
        print(
            f"Time of gather relative to the network: {median(more):+.1f} % ({min(more):+.1f} .. {max(more):+.1f})."
        )


if __name__ == "__main__":
    tyro.cli(main)
