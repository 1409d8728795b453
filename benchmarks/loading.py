"""Prints how many images a second a data set gives to training on one thread.

    python benchmarks/loading.py --path fashion-mnist

Images a second of processor time do not depend on what else runs on the machine; the best of several
rounds is taken. Pictures in files are decoded by --workers threads, whose time counts as well.
"""

from __future__ import annotations

import time
from itertools import islice

import torch
import tyro

from eqm.data import DataConfig, open_source, shares
from eqm.devices import machine


def main(
    data: tyro.conf.OmitArgPrefixes[DataConfig],
    batch_size: int = 128,
    rounds: int = 8,
    quick: bool = False,
) -> None:
    """Measure the loading of a data set.

    Args:
        data: What to load.
        batch_size: Images a batch.
        rounds: How often to measure; the best counts.
        quick: Try whether it runs: one round.
    """
    rounds = 1 if quick else rounds
    torch.set_num_threads(1)
    source = open_source(data)
    batches = shares(source, seed=0, position=0, batch_size=batch_size, device=torch.device("cpu"))
    steps = max(1, min(len(source), 40_000) // batch_size)
    best = wall = 0.0
    for _ in range(rounds):
        work, clock = time.process_time(), time.perf_counter()
        for _share in islice(batches, steps):
            pass
        best = max(best, steps * batch_size / (time.process_time() - work))
        wall = max(wall, steps * batch_size / (time.perf_counter() - clock))
    print(f"{source.name} {source.shape}: {best:,.0f} images a second of processor time,")
    print(f"{wall:,.0f} by the clock, in batches of {batch_size}; {machine()}")


if __name__ == "__main__":
    tyro.cli(main)
