"""What the number of samples does to metrics, where the truth is known: digits against digits.

    python benchmarks/sample_size.py

Half of scikit-learn's digits is the reference; the samples are digits of the other half, as they
are, with noise, or of five classes only. Each number is the mean over subsets, with its standard
deviation: a metric without bias gives the same at every size.
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
    density_coverage,
    frechet_at_infinity,
    frechet_distance,
    kernel_distance,
    precision_recall,
)

SIZES = (50, 100, 200, 400, 800)


def main(
    features: str = "classifier:digits",
    noise: float = 0.25,
    subsets: int = 10,
    picture: Path = Path("docs/assets/sample-size.png"),
    quick: bool = False,
) -> None:
    """Writes the table and the picture.

    Args:
        features: What sees the images.
        noise: Standard deviation of that of the noisy samples, for images in -1..1.
        subsets: To average over.
        picture: Where the picture is kept.
        quick: Two subsets, nothing kept.
    """
    torch.set_num_threads(1)
    subsets = 2 if quick else subsets
    eyes = open_features(features)
    reference, others = digits().split(0.5, seed=0)
    generator = torch.Generator().manual_seed(0)
    noisy = others.data + noise * torch.randn(others.data.shape, generator=generator)
    sets = {
        "real": eyes(others.data).vector,
        "with noise": eyes(noisy.clamp(-1, 1)).vector,
        "five classes": eyes(others[others.classes < 5].data).vector,
    }
    against = eyes(reference.data).vector
    moments = Moments.of(against)
    metrics: dict[str, Callable[[Tensor], float]] = {
        "frechet": lambda x: frechet_distance(Moments.of(x), moments),
        "frechet-infinity": lambda x: frechet_at_infinity(x, moments).value,
        "kernel": lambda x: kernel_distance(x, against, subsets=10).value,
        "precision": lambda x: precision_recall(x, against).precision,
        "recall": lambda x: precision_recall(x, against).recall,
        "density": lambda x: density_coverage(x, against).density,
        "coverage": lambda x: density_coverage(x, against).coverage,
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
            f"Digits in {eyes.name} ({eyes.fingerprint}), {eyes.size} numbers an image, against "
            f"{len(reference)} digits; mean and standard deviation of {subsets} subsets; noise of "
            f"{noise}.\n"
        )
        for kind in sets:
            sizes = [size for size in SIZES if ("frechet", kind, size) in found]
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
    """Returns nothing; draws a distance with bias, one without, and two shares."""
    from eqm.plots import BLUE, RED, drawing

    shown = [("frechet",), ("kernel",), ("recall", "coverage")]
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
