"""How many images per second data sets deliver to training, on one thread.

    python benchmarks/loading.py --paths fashion-mnist digits ./photos

Images per second of CPU time do not depend on other processes; the best of several rounds is printed.
Besides the named data sets, synthetic JPEGs with the detail of photographs are loaded, and their decoding
is measured alone, with and without cropping.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from PIL import Image
from timing import record

from eqm.data import DataConfig, batches, open_source
from eqm.data.decoding import decode


def main(
    paths: tuple[str, ...] = ("fashion-mnist", "digits"),
    size: int = 64,
    jpegs: int = 256,
    batch_size: int = 128,
    rounds: int = 8,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/loading.md.

    Args:
        paths: Data sets to load, by name or path.
        size: Crop and resize pictures to this side.
        jpegs: Number of 320x240 JPEGs to create and load.
        batch_size: Images per batch.
        rounds: Number of measurements; the best is printed.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        paths, jpegs, rounds = paths[-1:], 16, 1
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, record("loading", "Data loading", keep=not quick):
        print(f"Batches of {batch_size}; the best of {rounds} rounds.\n")
        print("| | shape | images/s of CPU time | images/s |\n|---|---|---|---|")
        for path in paths:
            row(DataConfig(path), path, batch_size, rounds)
        photographs(Path(folder), jpegs)
        name, config = f"{jpegs} JPEGs of 320x240", DataConfig(folder, size=size, workers=1)
        row(config, f"{name}, kept in memory", batch_size, rounds)
        row(replace(config, cache_mb=0), f"{name}, decoded each time", batch_size, rounds)
        for side in (size, 0):
            files = cycle(sorted(Path(folder).iterdir()))
            found = rate((pixels(next(files), side) for _ in iter(int, 1)), jpegs, 1, rounds)
            what = "only decoding and cropping" if side else "only decoding"
            print(f"| {what} | | {found[0]:,.0f} | {found[1]:,.0f} |")


def row(config: DataConfig, name: str, batch_size: int, rounds: int) -> None:
    """Prints how fast a data set loads."""
    source = open_source(config)
    loaded = batches(source, seed=0, position=0, batch_size=batch_size, device=torch.device("cpu"))
    count = max(1, min(len(source), 40_000) // batch_size)
    found = rate(loaded, count, batch_size, rounds)
    print(f"| {name} | {source.shape} | {found[0]:,.0f} | {found[1]:,.0f} |")


def rate(batches: Iterator[object], count: int, size: int, rounds: int) -> tuple[float, float]:
    """Images per second of CPU time and of real time, over `count` batches of `size` images."""
    work = clock = 0.0
    for _ in range(rounds):
        worked, began = time.process_time(), time.perf_counter()
        for _batch in islice(batches, count):
            pass
        work = max(work, count * size / (time.process_time() - worked))
        clock = max(clock, count * size / (time.perf_counter() - began))
    return work, clock


def pixels(path: Path, size: int) -> np.ndarray:
    with path.open("rb") as file:
        return decode(file, 3, size)


def photographs(folder: Path, count: int) -> None:
    """Writes JPEGs with the detail of photographs: noise with a 1 / frequency spectrum."""
    random = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(240)[:, None], np.fft.fftfreq(320)
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / 320)
    for k in range(count):
        waves = np.fft.fft2(random.standard_normal((3, 240, 320))) * falling
        picture = np.fft.ifft2(waves).real.transpose(1, 2, 0)
        picture = 128 + 40 * (picture - picture.mean()) / picture.std()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{k:04}.jpg")


if __name__ == "__main__":
    tyro.cli(main)
