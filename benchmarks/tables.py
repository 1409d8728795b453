"""Odd rows of tables: `EqmOutlierDetector` beside other detectors on the sets of ADBench.

    python benchmarks/tables.py --seeds 5

The sets are NAME.npz files (X, y) in $EQM_DATA/adbench, or in ../shared/data/adbench. In the setting `clean`
a random half of the normal rows is learnt, and all other rows are scored. In the setting `unlabelled` all
rows are learnt and scored. No detector is tuned; all but ours see standardised columns. Those of PyOD that
scikit-learn lacks (ECOD, COPOD, HBOS) are written here from their papers, with PyOD's defaults.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.stats import rankdata, skew
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from timing import record

from eqm.tasks import EqmOutlierDetector

FEWEST = 50
"""A smaller sample of a set keeps so many anomalies, or all if there are fewer."""
CONTAMINATION = 0.1
"""What our detector is told in the setting `unlabelled`, for every set: PyOD's default."""
Detector = Callable[[np.ndarray, np.ndarray | None, int], tuple[np.ndarray, float]]
"""From rows to learn, rows to score (None: the same) and a seed: scores, and when the fit had ended."""


def main(
    seeds: int = 1,
    rows: int = 10_000,
    settings: tuple[str, ...] = ("clean", "unlabelled"),
    only: tuple[str, ...] = (),
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/tables.md.

    Args:
        seeds: Random splits, samples and seeds for each set.
        rows: Larger sets are sampled down to so many rows.
        settings: clean, unlabelled or both.
        only: Parts of the names of sets; all sets if there are none.
        threads: CPU threads.
        quick: Only check that it runs, with the smallest sets; write nothing.
    """
    folder = Path(os.environ.get("EQM_DATA", "../shared/data")) / "adbench"
    paths = sorted(folder.glob("*.npz"), key=lambda path: int(path.stem.partition("_")[0]))
    if only:
        paths = [path for path in paths if any(part in path.stem for part in only)]
    if quick:
        paths = sorted(paths, key=lambda path: path.stat().st_size)[:2]
    if not paths:
        print(f"skipped: there are no sets in {folder}; set EQM_DATA to the folder above adbench")
        return
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # of too few rows for a rate; rates are not used
    with record("tables", "Odd rows of tables", keep=not (quick or only)):
        print(
            f"{len(paths)} sets of ADBench, {seeds} seed{'s' * (seeds > 1)}, at most {rows:,} rows of a set. "
            "Means over sets and seeds. Rank is that of the AUROC among the detectors, 1 = best. "
            "Times are the means of one fit and one scoring, CPU seconds of one core.\n"
        )
        for setting in settings:
            compare(setting, paths, seeds, rows)


def compare(setting: str, paths: list[Path], seeds: int, rows: int) -> None:
    """Prints the means over the sets, and the AUROC on each set."""
    found = np.zeros((len(paths), seeds, len(DETECTORS), 4))
    for place in np.ndindex(len(paths), seeds):
        known, scored, odd = split(paths[place[0]], setting, place[1], rows)
        for number, detector in enumerate(DETECTORS.values()):
            began = time.process_time()
            scores, fitted = detector(known, scored, place[1])
            times = fitted - began, time.process_time() - fitted
            quality = roc_auc_score(odd, scores), average_precision_score(odd, scores)
            found[(*place, number)] = *quality, *times
    ranks = np.array([rankdata(-areas) for areas in found[..., 0].mean(1)])
    print(f"## {setting}\n\n| detector | AUROC | average precision | rank | fit, s | score, s |")
    print("|---|---|---|---|---|---|")
    for number, name in enumerate(DETECTORS):
        area, precision, fit, score = found[:, :, number].mean((0, 1))
        print(
            f"| {name} | {area:.3f} | {precision:.3f} | {ranks[:, number].mean():.2f} "
            f"| {fit:.2f} | {score:.2f} |"
        )
    print("\nAUROC on each set:\n\n| set | " + " | ".join(DETECTORS) + " |")
    print("|---" * (len(DETECTORS) + 1) + "|")
    for path, areas in zip(paths, found[..., 0].mean(1), strict=True):
        print(
            f"| {path.stem.partition('_')[2]} | "
            + " | ".join(f"{area:.3f}" for area in areas)
            + " |"
        )
    print()


def split(
    path: Path, setting: str, seed: int, most: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Rows to learn, rows to score (None: the same), and which of the scored rows are odd."""
    with np.load(path) as file:
        rows, odd = file["X"].astype(np.float64), file["y"].astype(bool)
    random = np.random.default_rng(seed)
    normal, anomalies = (random.permutation(np.flatnonzero(odd == each)) for each in (False, True))
    if len(rows) > most:
        kept = min(len(anomalies), max(FEWEST, round(most * odd.mean())))
        normal, anomalies = normal[: most - kept], anomalies[:kept]
    if setting == "clean":
        half = len(normal) // 2
        scored = np.concatenate([normal[half:], anomalies])
        return rows[normal[:half]], rows[scored], odd[scored]
    scored = random.permutation(np.concatenate([normal, anomalies]))
    return rows[scored], None, odd[scored]


def ours(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    contamination = CONTAMINATION if scored is None else None
    detector = EqmOutlierDetector(random_state=seed, contamination=contamination).fit(known)
    fitted = time.process_time()
    return -detector.score_samples(known if scored is None else scored), fitted


def nearest(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    """PyOD's default: the distance to the fifth nearest other row."""
    neighbours = NearestNeighbors(n_neighbors=5).fit(known)
    fitted = time.process_time()
    return neighbours.kneighbors(scored)[0][:, -1], fitted


def forest(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    detector = IsolationForest(random_state=seed).fit(known)
    fitted = time.process_time()
    return -detector.score_samples(known if scored is None else scored), fitted


def factor(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    detector = LocalOutlierFactor(novelty=scored is not None).fit(known)
    fitted = time.process_time()
    found = detector.negative_outlier_factor_ if scored is None else detector.score_samples(scored)
    return -found, fitted


def machine(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    detector = OneClassSVM().fit(known)
    fitted = time.process_time()
    return -detector.score_samples(known if scored is None else scored), fitted


def tails(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    """ECOD (Li et al., arXiv 2201.00382): the improbability of the tails of each column."""
    left, right, both, fitted = _tails(known, scored)
    return np.max([left.sum(1), right.sum(1), both.sum(1)], axis=0), fitted


def copulas(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    """COPOD (Li et al., arXiv 2009.09463), as PyOD has it: the larger of the mean tail and that of the skew."""
    left, right, both, fitted = _tails(known, scored)
    return np.maximum((left + right) / 2, both).sum(1), fitted


def _tails(
    known: np.ndarray, scored: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """-log of the share of learnt values at most, and at least, as large; that of the tail that the skew tells;
    and when the fit had ended."""
    ordered, skewed = np.sort(known, axis=0), np.nan_to_num(skew(known, axis=0))
    fitted = time.process_time()
    rows, count = known if scored is None else scored, len(known)
    columns = list(zip(ordered.T, rows.T, strict=True))
    below = np.array([np.searchsorted(order, column, "right") for order, column in columns]).T
    above = count - np.array([np.searchsorted(order, column) for order, column in columns]).T
    left, right = (-np.log(np.maximum(tail, 1) / count) for tail in (below, above))
    return left, right, np.where(skewed < 0, left, right), fitted


def histograms(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
    """HBOS (Goldstein and Dengel 2012) with ten bins a column: the improbability of each value's bin.

    A value outside of all bins counts as one in an empty bin."""
    bins = [np.histogram(column, 10) for column in known.T]
    fitted = time.process_time()
    found = 0.0
    for (counts, edges), column in zip(bins, (known if scored is None else scored).T, strict=True):
        places = np.searchsorted(edges[1:-1], column, "right")
        inside = (column >= edges[0]) & (column <= edges[-1])
        density = np.where(inside, counts[places], 0) / counts.max()
        found = found - np.log(density + 0.1)
    return np.asarray(found), fitted


def standardised(detector: Detector) -> Detector:
    """The detector on columns of mean 0 and variance 1 in the rows to learn."""

    def run(known: np.ndarray, scored: np.ndarray | None, seed: int) -> tuple[np.ndarray, float]:
        scaler = StandardScaler().fit(known)
        rows = None if scored is None else scaler.transform(scored)
        return detector(scaler.transform(known), rows, seed)

    return run


DETECTORS: dict[str, Detector] = {
    "EqmOutlierDetector": ours,
    "5 nearest neighbours": standardised(nearest),
    "Isolation Forest": standardised(forest),
    "LOF": standardised(factor),
    "one-class SVM": standardised(machine),
    "ECOD": standardised(tails),
    "COPOD": standardised(copulas),
    "HBOS": standardised(histograms),
}


if __name__ == "__main__":
    tyro.cli(main)
