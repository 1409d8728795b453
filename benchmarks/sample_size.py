"""How metrics depend on the number of samples: digits against digits.

    python benchmarks/sample_size.py

Half of scikit-learn's digits is the reference. The samples are the other half, unchanged, with noise, or
only five classes. Each number is the mean over subsets, with its standard deviation. An unbiased metric has
the same mean at every size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean, pstdev

import torch
import tyro
from timing import record
from torch import Tensor

from eqm.data import digits
from eqm.features import open_features
from eqm.metrics import (
    Moments,
    frechet_at_infinity,
    frechet_distance,
    kernel_distance,
    overlap,
)

SIZES = (50, 100, 200, 400, 800)


def main(
    features: str = "classifier:digits",
    noise: float = 0.25,
    subsets: int = 10,
    picture: Path = Path("docs/assets/sample-size.png"),
    quick: bool = False,
) -> None:
    """Prints the tables, writes them to results/sample-size-digits.md, and plots them.

    Args:
        features: Features of the metrics.
        noise: Standard deviation of the noise, for images in -1..1.
        subsets: Number of subsets.
        picture: File of the plot.
        quick: Only check that it runs, with two subsets; write nothing.
    """
    torch.set_num_threads(1)
    subsets = 2 if quick else subsets
    network = open_features(features)
    reference, others = digits().split(0.5, seed=0)
    generator = torch.Generator().manual_seed(0)
    noisy = others.data + noise * torch.randn(others.data.shape, generator=generator)
    sets = {
        "real": network(others.data).vector,
        "with noise": network(noisy.clamp(-1, 1)).vector,
        "five classes": network(others[others.classes < 5].data).vector,
    }
    against = network(reference.data).vector
    moments = Moments.of(against)
    metrics: dict[str, Callable[[Tensor], float]] = {
        "Frechet distance": lambda x: frechet_distance(Moments.of(x), moments),
        "Frechet distance, infinite samples": lambda x: frechet_at_infinity(x, moments).value,
        "kernel distance": lambda x: kernel_distance(x, against, subsets=10).value,
        "precision": lambda x: overlap(x, against, neighbours=3).precision,
        "recall": lambda x: overlap(x, against, neighbours=3).recall,
        "density": lambda x: overlap(x, against, neighbours=5).density,
        "coverage": lambda x: overlap(x, against, neighbours=5).coverage,
    }
    found = {
        (name, kind, size): [
            metric(rows[torch.randperm(len(rows), generator=generator)[:size]])
            for _ in range(subsets)
        ]
        for kind, rows in sets.items()
        for size in SIZES
        if size <= len(rows)
        for name, metric in metrics.items()
    }
    with record("sample-size-digits", "Metrics by the number of samples", keep=not quick):
        print(
            f"Digits in {network.name} features ({network.fingerprint}), {network.size} numbers per image, against "
            f"{len(reference)} digits. Mean and standard deviation over {subsets} subsets. Noise {noise}.\n"
        )
        for kind in sets:
            sizes = [size for size in SIZES if ("Frechet distance", kind, size) in found]
            print(f"| {kind} | " + " | ".join(map(str, sizes)) + " |")
            print("|---" * (len(sizes) + 1) + "|")
            for name in metrics:
                cells = [found[name, kind, size] for size in sizes]
                print(
                    f"| {name} | " + " | ".join(f"{mean(c):.3g} ± {pstdev(c):.1g}" for c in cells),
                    "|",
                )
            print()
    if not quick:
        draw(found, list(sets)[:2], picture)


def draw(found: dict[tuple[str, str, int], list[float]], kinds: list[str], path: Path) -> None:
    """Returns nothing; plots a biased distance, an unbiased one, recall and coverage."""
    from eqm.plots import BLUE, RED, drawing

    shown = [("Frechet distance",), ("kernel distance",), ("recall", "coverage")]
    with drawing(path, panels=3) as panels:
        for axes, names in zip(panels, shown, strict=True):
            for name in names:
                for kind, colour in zip(kinds, (BLUE, RED), strict=True):
                    cells = [found[name, kind, size] for size in SIZES]
                    dashed = name == "coverage"
                    axes.errorbar(
                        *(SIZES, [mean(c) for c in cells], [pstdev(c) for c in cells]),
                        color=colour, linestyle="--" if dashed else "-",
                        label="_" if dashed else kind, marker="o", markersize=3,
                    )  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks(SIZES, [str(size) for size in SIZES])
            axes.minorticks_off()
            axes.set_title(", dashed ".join(names), loc="left")
            axes.set_xlabel("samples")
            axes.legend()


if __name__ == "__main__":
    tyro.cli(main)
