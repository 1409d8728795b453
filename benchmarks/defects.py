"""Detection of defective parts after training on good parts alone, beside PatchCore, PaDiM and neighbours.

    python benchmarks/defects.py --sheet docs/assets/detect.png

Magnetic tiles and screws are read from magnetic-tiles.zip and mvtec-screw256.zip in $EQM_DATA, or in
../shared/data; solar cells come with the package elpv-dataset. All methods but the pixels get the same maps of
the same network. The sheet shows heat maps of defective parts.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
import tyro
from defect_sets import SETS, Parts
from neighbours import SamePlace, WholePictures
from padim import PaDiM
from patchcore import PatchCore
from scipy.stats import binomtest
from timing import record
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from eqm.encoders import FeatureMaps
from eqm.encoders.maps import open_maps
from eqm.metrics import auroc, average_precision, bootstrap, pixel_intervals
from eqm.pictures import grid, heatmap
from eqm.tasks import EqmDetector, train_detector

SIGMA = 4
"""The maps of PatchCore and PaDiM are smoothed by a Gaussian of so many pixels, as in their papers."""
PIXELS, PIXEL_STEPS = 32, 150
"""Side and training steps where no network is used; a field on more pixels takes far longer."""
BATCH = 32
RESAMPLES = 500


def main(
    only: tuple[str, ...] = (),
    features: str = "lite0",
    steps: int | None = None,
    sheet: Path | None = None,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and writes each to results/defects-SET.md.

    Args:
        only: Sets out of elpv, tiles and screw; all sets if there are none.
        features: The network whose maps all methods get.
        steps: Training steps of our field; by default those of `train_detector`.
        sheet: Write heat maps of defective parts to this file.
        threads: CPU threads.
        quick: Only check that it runs, with few pictures; write nothing.
    """
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # of pictures too few for a rate, in quick runs
    sheets = []
    for name in only or tuple(SETS):
        try:
            parts = SETS[name]()
        except (FileNotFoundError, ValueError) as error:
            print(f"{name} skipped: {error}\n")
            continue
        title = f"Detection of defective parts: {parts.name}"
        with record(f"defects-{name}", title, keep=not quick):
            sheets.append(compare(parts.few(24) if quick else parts, features, steps))
    if sheet is not None and sheets:
        grid(torch.cat(sheets), columns=len(sheets[0]), scale=1).save(sheet)


@dataclass(frozen=True, eq=False)
class Found:
    """What a method says about the good and then the defective parts."""

    scores: Tensor
    maps: Tensor | None
    """(N, S, S)"""
    kept: int
    """Bytes of the fitted method."""
    fit: float
    """Seconds of one core."""
    score: float
    """Seconds of one core for all parts."""


class Remembering:
    """A frozen network that keeps its maps of each picture, so that they are computed once."""

    def __init__(self, read: Callable[[Tensor], object]) -> None:
        self.read, self.known, self.seconds = read, {}, 0.0

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        keys = [sha256(x.contiguous().numpy().data).digest() for x in pictures]
        new = [k for k, key in enumerate(keys) if key not in self.known]
        if new:
            began = time.process_time()
            maps = self.read(pictures[new])
            self.seconds += time.process_time() - began
            for row, k in enumerate(new):
                self.known[keys[k]] = [each[row].clone() for each in maps]
        return [torch.stack(each) for each in zip(*(self.known[key] for key in keys), strict=True)]


def compare(parts: Parts, features: str, steps: int | None) -> Tensor:
    """Prints the table of one set; returns pictures and heat maps for the sheet."""
    side = parts.train.shape[2]
    found = open_maps(features, side=side)
    network = Remembering(found.read)
    encoder: FeatureMaps = replace(found, read=network)
    raw = encoder.raw(parts.train)
    white = encoder.whitened(iter([raw]))
    train, tested = white.white(raw), torch.cat([parts.good, parts.bad])
    test = white.white(encoder.raw(tested))
    count = len(parts.train) + len(tested)
    print(
        f"Trained on {len(parts.train)} good parts, measured on {len(parts.good)} "
        f"other good parts and {len(parts.bad)} defective ones, at {side}x{side}; maps of {found.name}, "
        f"{train.shape[1]} channels on a {train.shape[2]}x{train.shape[3]} grid, which take "
        f"{network.seconds / count * 1e3:.0f} ms a picture beside the times in the table.\n"
    )
    pixels = ", pixel AUROC, PRO and F1" * bool(parts.masks)
    print(
        "| method | AUROC | AP |"
        + " pixel AUROC | PRO | F1 |" * bool(parts.masks)
        + " MB | fit, s | ms a picture |"
    )
    print("|---|---|---|" + "---|---|---|" * bool(parts.masks) + "---|---|---|")
    began = time.process_time()
    ours = train_detector(parts.train, features=encoder, steps=steps)
    show("eqm", of_detector(ours, tested, time.process_time() - began), parts)
    for name, method in {
        "PatchCore, coreset 10 %": PatchCore.fit,
        "PaDiM, all channels": PaDiM.fit,
        "PaDiM, 80 channels": lambda maps: PaDiM.fit(maps, dimensions=80),
        "nearest at the same place": SamePlace.fit,
    }.items():
        show(name, of_maps(method, train, test, side), parts)
    began = time.process_time()
    whole = WholePictures.fit(train)
    fitted = time.process_time()
    scores = whole.scores(test)
    times = fitted - began, time.process_time() - fitted
    show("5th nearest picture", Found(scores, None, size_of(whole.tensors), *times), parts)
    began = time.process_time()
    plain = train_detector(parts.train, features="pixels", size=PIXELS, steps=steps or PIXEL_STEPS)
    show(
        f"eqm on pixels alone, {PIXELS}x{PIXELS}",
        of_detector(plain, tested, time.process_time() - began),
        parts,
    )
    print(
        f"\nAUROC and AP are those of pictures{pixels} those of pixels. In brackets are 95 % intervals "
        "(bootstrap over pictures). MB are those of the fitted method without the network of the maps. Times are "
        "of one core.\n"
    )
    by_kind(ours, parts)
    alarms(ours, parts)
    return pictures_of(ours, parts)


def of_detector(detector: EqmDetector, tested: Tensor, fit: float) -> Found:
    """What a fitted detector says. Scores and maps are timed together, as for the other methods."""
    with tempfile.TemporaryDirectory() as folder:
        detector.save(folder)
        kept = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    began = time.process_time()
    scores = detector.score_samples(tested)
    seconds = time.process_time() - began
    return Found(scores, detector.anomaly_map(tested), kept, fit, seconds)


def of_maps(
    fit: Callable[[Tensor], PaDiM | PatchCore | SamePlace], train: Tensor, test: Tensor, side: int
) -> Found:
    """What a baseline says: the largest distance of a picture, and smoothed maps at its size."""
    began = time.process_time()
    method = fit(train)
    fitted = time.process_time()
    distances, scores = [], []
    for maps in test.split(BATCH):
        found = method(maps)
        distances.append(found)
        scores.append(
            method.scores(maps, found)
            if isinstance(method, PatchCore)
            else found.flatten(1).amax(1)
        )
    seconds = time.process_time() - fitted
    large = smooth(enlarge(torch.cat(distances), (side, side)))
    return Found(torch.cat(scores), large, size_of(method.tensors), fitted - began, seconds)


def size_of(tensors: list[Tensor]) -> int:
    """Bytes of all tensors."""
    return sum(each.numel() * each.element_size() for each in tensors)


def enlarge(maps: Tensor, sides: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) at another size."""
    return interpolate(maps[:, None], sides, mode="bilinear", align_corners=False)[:, 0]


def smooth(maps: Tensor) -> Tensor:
    """Maps (N, H, W) convolved with a Gaussian of SIGMA pixels."""
    reach = 4 * SIGMA
    line = torch.exp(-torch.arange(-reach, reach + 1.0).square() / 2 / SIGMA**2)
    line = line / line.sum()
    found = pad(maps[:, None], (reach,) * 4, mode="reflect")
    return conv2d(conv2d(found, line[None, None, None]), line[None, None, :, None])[:, 0]


def show(name: str, found: Found, parts: Parts) -> None:
    """Prints a row of the table."""
    good, bad = found.scores.split([len(parts.good), len(parts.bad)])
    area = bootstrap(auroc, good, bad, resamples=RESAMPLES)
    cells = [name, interval(area), f"{average_precision(good, bad):.3f}"]
    if parts.masks and found.maps is None:
        cells += [""] * 3
    elif parts.masks and found.maps is not None:
        sized = [
            enlarge(x[None], tuple(mask.shape))[0]
            for x, mask in zip(found.maps, parts.masks, strict=True)
        ]
        cells += map(interval, pixel_intervals(sized, parts.masks, resamples=RESAMPLES))
    cells += [f"{found.kept / 1e6:.1f}", f"{found.fit:.0f}"]
    cells += [f"{found.score / len(found.scores) * 1e3:.1f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def interval(found: tuple[float, float, float]) -> str:
    """A value with its interval."""
    low, value, high = found
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def by_kind(detector: EqmDetector, parts: Parts) -> None:
    """Prints the AUROC of each kind of defect, if there are several."""
    scores: dict[str, list[Tensor]] = defaultdict(list)
    for kind, score in zip(parts.kinds, detector.score_samples(parts.bad), strict=True):
        scores[kind].append(score)
    good = detector.score_samples(parts.good)
    if len(scores) > 1:
        areas = [
            f"{kind} {auroc(good, torch.stack(each)):.3f}" for kind, each in sorted(scores.items())
        ]
        print(f"AUROC of eqm by kind: {', '.join(areas)}.\n")


def alarms(detector: EqmDetector, parts: Parts) -> None:
    """Prints the share of good parts that are flagged at two rates."""
    values = detector.p_values(parts.good)
    said = []
    for rate in (0.05, 0.1):
        flagged = int((values <= rate).sum())
        bounds = binomtest(flagged, len(values)).proportion_ci(0.95)
        said.append(
            f"asked for {rate}, {flagged} of {len(values)}, {flagged / len(values):.3f} "
            f"[{bounds.low:.3f}, {bounds.high:.3f}]"
        )
    print(
        f"False alarms of eqm on good parts that it never saw ({len(detector.held_out)} others calibrate): "
        f"{'; '.join(said)} (95 % binomial intervals).\n"
    )


def pictures_of(detector: EqmDetector, parts: Parts) -> Tensor:
    """Three defective parts at quarters of the ranking, a good one, and their heat maps, 160x160."""
    order = detector.score_samples(parts.bad).argsort(descending=True)
    chosen = parts.bad[order[[len(order) * k // 8 for k in (1, 2, 4)]]]
    shown = torch.cat([chosen, parts.good[:1]])
    maps = heatmap(shown, detector.anomaly_map(shown))
    both = torch.cat([shown.expand_as(maps), maps])
    return interpolate(both, (160, 160), mode="bilinear", antialias=True, align_corners=False)


if __name__ == "__main__":
    tyro.cli(main)
