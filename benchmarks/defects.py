"""Anomaly detection of defective solar cells, beside baselines.

    python benchmarks/defects.py --model runs/elpv --sheet docs/assets/detect.png

The model of the recipe `elpv` and the baselines saw only functional cells. Printed is the AUROC of
functional validation cells against defective cells. The sheet shows heat maps of three defective cells.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from scorers import Cached, Scorer, baselines, everything, nearest_in
from timing import record

from eqm.data import DataConfig, open_source, split
from eqm.metrics import auroc
from eqm.pictures import grid, heatmap
from eqm.tasks import EqmDetector
from eqm.tasks.scores import ScoreConfig


def main(
    model: str = "runs/elpv",
    count: int = 1000,
    features: str = "lite0",
    sheet: Path | None = None,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/defects.md.

    Args:
        model: Folder of a model of functional cells.
        count: The most defective cells.
        features: A name that `eqm.features.open_features` takes.
        sheet: Write heat maps of three defective cells and a functional one to this file.
        threads: CPU threads.
        quick: Only check that it runs; write nothing.
    """
    torch.set_num_threads(threads)
    with record("defects", "Detection of defective solar cells", keep=not quick):
        cells(model, 40 if quick else count, features, sheet)


def cells(folder: str, count: int, features: str, sheet: Path | None) -> None:
    """Prints the AUROC of functional against defective cells, and draws heat maps."""
    network = Cached(folder)
    size = network.config.shape[1]
    functional = DataConfig("elpv", size=size, classes=("functional",), labels=False)
    known, held = split(open_source(functional), functional.val_fraction)
    if known.fingerprint != network.metadata["data"]["fingerprint"]:
        raise ValueError(f"{folder} was trained on other cells: train the recipe elpv")
    seen, normal = everything(known), everything(held)
    defective = everything(open_source(replace(functional, classes=("defective",))))[:count]
    halves = normal[torch.randperm(len(normal), generator=torch.Generator().manual_seed(0))].chunk(
        2
    )
    print(
        f"ELPV: {len(normal)} functional validation cells against {len(defective)} defective cells at "
        f"{size}x{size}, trained on {len(seen)} functional cells. AUROC. Calibrated scores use one half of the "
        "functional cells for calibration and the other for measuring; the mean of both ways.\n"
    )
    print("| score | AUROC |\n|---|---|")
    detector = EqmDetector(network)
    for name in ("dot", "gradient-norm", "loss", "losses", "residuals", "combined"):
        areas = []
        for fresh, left in (halves, halves[::-1]):
            detector = EqmDetector(network, name).fit(fresh)
            areas.append(auroc(detector.score_samples(left), detector.score_samples(defective)))
        print(f"| `{name}` | {np.mean(areas):.3f} |", flush=True)
    config = ScoreConfig.of(network, gammas=[0.1])
    low = EqmDetector(network, "loss", config=config).fit(normal)
    scorers: dict[str, Scorer] = {
        "loss at gamma 0.1": low.score_samples,
        "maximum of the anomaly map": lambda x: low.anomaly_map(x).flatten(1).amax(1),
        **baselines(seen),
    }
    near = nearest_in(features, seen)
    scorers |= {} if near is None else {f"5th nearest in {features}": near}
    for name, score in scorers.items():
        print(f"| {name} | {auroc(score(normal), score(defective)):.3f} |", flush=True)
    print()
    if sheet is not None:
        order = detector.score_samples(defective).argsort(descending=True)
        chosen = defective[order[[len(order) // k for k in (8, 4, 2)]]]
        usual = halves[0][:1]  # calibrated on the other half
        shown = torch.cat([chosen, usual])
        maps = heatmap(shown, low.anomaly_map(shown))
        grid(torch.cat([shown.expand_as(maps), maps]), columns=4, scale=2).save(sheet)


if __name__ == "__main__":
    tyro.cli(main)
