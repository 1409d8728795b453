"""Anomaly detection on Fashion-MNIST: every score, beside baselines.

    python benchmarks/detection.py --flow FOLDER

Fashion-MNIST test pictures against MNIST, noise, uniform grey, faces and textures: the AUROC of every
score; for the combined score also four more metrics with bootstrap intervals, and its false alarms. Then
the time of the scores beside that of the network.

The baselines see the training pictures of the model: reconstruction from 64 principal components,
scikit-learn's Isolation Forest, and the distance to the fifth nearest training picture in pixels and in
EfficientNet-Lite0 features. A flow-matching model with the same network and data is scored by its loss,
by reconstruction from half noise, and by the same combined score.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import tyro
from scipy.stats import binomtest
from scorers import Cached, Scorer, baselines, faces, nearest_in, rows_of, some
from skimage import data as pictures
from timing import record, table
from torch import Tensor
from torch.nn.functional import interpolate

import eqm
from eqm.corruption import corrupt, decay_of
from eqm.data import DataConfig, open_source
from eqm.descent import integrate
from eqm.metrics import auroc, average_precision, bootstrap, fpr_at_tpr
from eqm.tasks import EqmDetector
from eqm.tasks.scores import ScoreConfig


def main(
    model: str = "fashion-mnist",
    flow: str | None = None,
    count: int = 1000,
    few: int = 100,
    references: int = 5000,
    seen: int = 1000,
    features: str = "lite0",
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/detection.md.

    Args:
        model: Name or folder of a model of Fashion-MNIST.
        flow: Folder of the flow-matching model; skipped if not given.
        count: The most pictures of a set, and the number of calibration pictures.
        few: The most pictures of a set for scores that descend, which take 25 NFE.
        references: Training pictures for the baselines.
        seen: Training pictures for the nearest neighbours in `features`.
        features: A name that `eqm.features.open_features` takes.
        threads: CPU threads.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        count, few, references, seen = 40, 8, 100, 40
    torch.set_num_threads(threads)
    with record("detection", "Anomaly detection on Fashion-MNIST", keep=not quick):
        clothes(model, flow, count, few, references, seen, features)
        speed(model, 4 * count)


def clothes(
    model: str,
    flow: str | None,
    count: int,
    few: int,
    references: int,
    seen: int,
    features: str,
) -> None:
    """Prints the AUROC of every score and baseline, and more metrics of the combined score."""
    network = Cached(model)
    test, known = open_source(DataConfig("fashion-mnist-test")), some("fashion-mnist", references)
    half = len(test) // 2
    calibration, normal = rows_of(test, range(count)), rows_of(test, range(half, half + count))
    sets = anomalies(count)
    print(
        f"Fashion-MNIST: {len(normal)} test pictures, with {len(calibration)} others for calibration, against "
        + ", ".join(f"{len(x)} {name}" for name, x in sets.items())
        + f". AUROC. Scores that descend use the first {few} pictures of every set.\n"
    )
    print("| score | NFE | " + " | ".join(sets) + " |\n|---" + "|---" * len(sets) + "|---|")
    at_most = {name: x[:few] for name, x in sets.items()}
    for gamma in (0.1, 0.3, 0.5, 1.0):
        detector = EqmDetector(network, "loss", config=ScoreConfig.of(network, gammas=[gamma]))
        line(f"loss at gamma {gamma:g}", 1, detector.score_samples, normal, sets)
    for name, cost in {"dot": 1, "gradient-norm": 1, "complexity": 0, "loss": 6}.items():
        line(f"`{name}`", cost, EqmDetector(network, name).score_samples, normal, sets)
    steps = ScoreConfig.of(network).sampling.max_steps
    for name in ("work", "displacement", "reconstruction", "steps"):
        score = EqmDetector(network, name).score_samples
        line(f"`{name}`", steps + (name == "work"), score, normal[:few], at_most)
    found = {}
    for name in ("losses", "residuals", ("losses", "complexity"), "combined"):
        detector = EqmDetector(network, name).fit(calibration)
        words = name if isinstance(name, str) else " + ".join(name)
        found = line(f"`{words}`", 6, detector.score_samples, normal, sets)
    if flow is not None:
        twin = Cached(flow)
        line("flow matching: loss", 6, EqmDetector(twin, "loss").score_samples, normal, sets)
        same = EqmDetector(twin).fit(calibration).score_samples
        line("flow matching: `combined`", 6, same, normal, sets)
        line("flow matching: reconstruction", steps, partial(rebuilt, twin), normal[:few], at_most)
    for name, score in baselines(known).items():
        line(name, "", score, normal, sets)
    near = nearest_in(features, known[:seen])
    if near is not None:
        line(f"5th nearest of {seen} in {features}", "", near, normal, sets)
    print(
        "\nThe combined score, with 95 % bootstrap intervals. The positives are normal pictures in AUPR-in, "
        "anomalies in AUPR-out. FPR95 (normal): the fraction of anomalies that pass if 95 % of normal pictures "
        "pass. FPR95 (anomalous): the fraction of normal pictures flagged if 95 % of anomalies are flagged.\n"
    )
    measures: dict[str, Callable[[Tensor, Tensor], float]] = {
        "AUROC": auroc,
        "AUPR-in": partial(average_precision, positive="normal"),
        "AUPR-out": partial(average_precision, positive="anomalous"),
        "FPR95 (normal)": partial(fpr_at_tpr, positive="normal"),
        "FPR95 (anomalous)": partial(fpr_at_tpr, positive="anomalous"),
    }
    print("| against | " + " | ".join(measures) + " |\n|---" + "|---" * len(measures) + "|")
    usual = found.pop("")
    for name, scores in found.items():
        cells = [str(bootstrap(measure, usual, scores)) for measure in measures.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    false_alarms(detector, usual)


def false_alarms(detector: EqmDetector, scores: Tensor) -> None:
    """Prints the fraction of unseen normal pictures that is flagged, with its interval."""
    p_values = detector.p_values_of(scores)
    assert detector.calibration is not None
    print(
        f"\nFalse alarms among {len(scores)} unseen normal pictures, by conformal p-values from "
        f"{len(detector.calibration.scores)} others.\n"
    )
    print("| requested rate | flagged | 95 % interval |\n|---|---|---|")
    for rate in (0.01, 0.05, 0.1, 0.2):
        flagged = int((p_values <= rate).sum())
        low, high = binomtest(flagged, len(scores)).proportion_ci(method="exact")
        print(f"| {rate:g} | {flagged / len(scores):.4f} | {low:.4f} .. {high:.4f} |")
    print()


def speed(model: str, count: int) -> None:
    """Prints the time of scores with NFE 1, beside that of the network."""
    network = eqm.from_pretrained(model).requires_grad_(False)
    x = some("fashion-mnist-test", count)

    def alone() -> None:
        with torch.no_grad():
            for batch in x.split(256):
                network(batch)

    config = ScoreConfig.of(network, gammas=[0.3])
    variants: dict[str, Callable[[], object]] = {"the network alone": alone}
    for name in ("dot", "gradient-norm", "loss"):
        detector = EqmDetector(network, name, config=config)
        variants[f"`{name}`"] = partial(detector.score_samples, x)
    table(f"{len(x):,} pictures, NFE 1", variants, 2, torch.device("cpu"))


def line(
    name: str, cost: object, score: Scorer, normal: Tensor, sets: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Prints a row of AUROC; returns the scores of every set, with key "" for normal pictures."""
    found = {"": score(normal)} | {key: score(x) for key, x in sets.items()}
    areas = [f"{auroc(found[''], found[key]):.3f}" for key in sets]
    print(f"| {name} | {cost} | " + " | ".join(areas) + " |", flush=True)
    return found


def rebuilt(twin: Cached, x: Tensor) -> Tensor:
    """The reconstruction error of a flow that starts from each picture with half noise."""
    noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).expand_as(x)
    start = corrupt(x, noise, torch.full((len(x),), 0.5))
    steps = ScoreConfig.of(twin).sampling.max_steps
    end = integrate(twin, start, steps=steps, start=0.5, decay=decay_of(twin))
    return (end.x - x).flatten(1).norm(dim=1)


def anomalies(count: int) -> dict[str, Tensor]:
    """Grey 28x28 pictures that are not clothes."""
    generator = torch.Generator().manual_seed(0)
    few, shape = min(count, 150), (1, 28, 28)
    small = torch.from_numpy(faces()).float()[:, None] * 2 - 1
    tiles = []
    for kind in (pictures.brick, pictures.grass, pictures.gravel):
        whole = torch.from_numpy(kind()).float()[None, None] / 127.5 - 1
        whole = interpolate(whole, size=(252, 252), mode="area")
        tiles.append(whole.unfold(2, 28, 28).unfold(3, 28, 28).reshape(-1, *shape))
    larger = interpolate(small, size=(28, 28), mode="bilinear", antialias=True).clamp(-1, 1)
    found = {
        "MNIST": some("mnist-5k", count),
        "uniform noise": torch.rand(few, *shape, generator=generator) * 2 - 1,
        "normal noise": torch.randn(few, *shape, generator=generator).clamp(-1, 1),
        "one grey": torch.linspace(-1, 1, few).view(-1, 1, 1, 1).expand(-1, *shape).clone(),
        "faces": larger,
        "textures": torch.cat(tiles),
    }
    order = {name: torch.randperm(len(x), generator=generator)[:count] for name, x in found.items()}
    return {name: x[order[name]] for name, x in found.items()}


if __name__ == "__main__":
    tyro.cli(main)
