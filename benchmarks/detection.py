"""How well anomalous pictures are told from normal ones: every score, beside baselines.

    python benchmarks/detection.py --flow FOLDER --one-class PREFIX --elpv FOLDER

Fashion-MNIST test pictures against MNIST, noise, one grey for all pixels, faces and textures: the AUROC
of every score, and of the combined one all five numbers with bootstrap intervals and its false alarms.
Then ten small models of one class of clothes each, against the other nine; PREFIX-0 to PREFIX-9 are
trained if they are not there, half a minute each. Then solar cells: functional test cells against
defective ones, with heat maps. Then the speed of scores beside the network's own.

Baselines that see what the model saw in training: reconstruction from 64 principal components,
scikit-learn's Isolation Forest, the distance to the fifth nearest training picture in pixels and in
the features of EfficientNet-Lite0; and a flow-matching model of the same network and pictures, by its
loss, by reconstruction from half noise, and by the same combined score.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.stats import binomtest
from skimage import data as pictures
from sklearn.ensemble import IsolationForest
from timing import record, table
from torch import Tensor
from torch.nn.functional import interpolate

import eqm
from eqm.corruption import corrupt, decay_of
from eqm.data import DataConfig, Source, open_source, split
from eqm.descent import integrate
from eqm.features import open_features
from eqm.metrics import auroc, average_precision, bootstrap, fpr_at_tpr
from eqm.models import UNetConfig
from eqm.pictures import grid, heat
from eqm.randomness import Draws
from eqm.recipes import RECIPES
from eqm.tasks import EqmDetector
from eqm.tasks.scores import Probe
from eqm.train import train


class Remembering:
    """A trained model that answers what it was asked before from memory: scores share evaluations."""

    def __init__(self, name: str | Path) -> None:
        self.model = eqm.from_pretrained(name).requires_grad_(False)
        self.config, self.metadata = self.model.config, self.model.metadata
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, x: Tensor, labels: Tensor | None, *gamma: Tensor) -> Tensor:
        key = sha256(x.contiguous().numpy().data)
        key.update(b"".join(level.numpy().tobytes() for level in gamma))
        if key.digest() not in self.known:
            with torch.no_grad():
                self.known[key.digest()] = self.model(x, labels, *gamma)
        return self.known[key.digest()]


Scorer = Callable[[Tensor], Tensor]
"""One number a picture, higher = more anomalous."""


def main(
    model: str = "fashion-mnist",
    flow: str | None = None,
    one_class: str | None = None,
    elpv: str | None = None,
    count: int = 1000,
    few: int = 100,
    references: int = 5000,
    seen: int = 1000,
    features: str = "lite0",
    sheet: Path | None = None,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and keeps them in results/.

    Args:
        model: Name or folder of a model of Fashion-MNIST.
        flow: Folder of its flow-matching twin; left out if it is not given.
        one_class: Prefix of the folders of ten models of one class each; left out if not given.
        elpv: Folder of a model of functional solar cells; left out if not given.
        count: The most pictures of a set, and normal ones to calibrate on.
        few: The most for scores that descend, 25 evaluations a picture.
        references: Training pictures for the baselines.
        seen: Training pictures for the nearest in `features`.
        features: What `eqm.features.open_features` opens.
        sheet: Picture of three heat maps of cells, if you like.
        threads: CPU threads.
        quick: Only try whether everything runs.
    """
    if quick:
        count, few, references, seen = 40, 8, 100, 40
    torch.set_num_threads(threads)
    with record("detection", "Detection of anomalous pictures", keep=not quick):
        clothes(model, flow, count, few, references, seen, features)
        if one_class is not None:
            classes(one_class, count // 3, references, 2 if quick else 10)
        if elpv is not None:
            cells(elpv, count, features, sheet)
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
    """Prints AUROC of every score and baseline, the five numbers of the combined one, false alarms."""
    network = Remembering(model)
    test, known = open_source(DataConfig("fashion-mnist-test")), some("fashion-mnist", references)
    half = len(test) // 2
    calibration, normal = rows_of(test, range(count)), rows_of(test, range(half, half + count))
    sets = anomalies(count)
    print(
        f"Fashion-MNIST: {len(normal)} test pictures, and {len(calibration)} others to calibrate on, against "
        + ", ".join(f"{len(x)} {name}" for name, x in sets.items())
        + f". AUROC; what descends is scored on the first {few} of every set.\n"
    )
    print("| score | evaluations | " + " | ".join(sets) + " |\n|---" + "|---" * len(sets) + "|---|")
    at_most = {name: x[:few] for name, x in sets.items()}
    for gamma in (0.1, 0.3, 0.5, 1.0):
        detector = EqmDetector(network, "loss", probe=Probe.of(network, gammas=[gamma]))
        line(f"loss at gamma {gamma:g}", 1, detector.score_samples, normal, sets)
    for name, cost in {"dot": 1, "gradient-norm": 1, "complexity": 0, "loss": 6}.items():
        line(f"`{name}`", cost, EqmDetector(network, name).score_samples, normal, sets)
    steps = Probe.of(network).sampling.max_steps
    for name in ("work", "displacement", "restore", "steps"):
        score = EqmDetector(network, name).score_samples
        line(f"`{name}`", steps + (name == "work"), score, normal[:few], at_most)
    found = {}
    for name in ("losses", "residuals", ("losses", "complexity"), "combined"):
        detector = EqmDetector(network, name).fit(calibration)
        words = name if isinstance(name, str) else " + ".join(name)
        found = line(f"`{words}`", 6, detector.score_samples, normal, sets)
    if flow is not None:
        twin = Remembering(flow)
        line("flow matching: loss", 6, EqmDetector(twin, "loss").score_samples, normal, sets)
        same = EqmDetector(twin).fit(calibration).score_samples
        line("flow matching: `combined`", 6, same, normal, sets)
        line("flow matching: reconstruction", steps, partial(rebuilt, twin), normal[:few], at_most)
    for name, score in baselines(known).items():
        line(name, "", score, normal, sets)
    near = nearest_in(features, known[:seen])
    if near is not None:
        line(f"5th nearest of {seen} by {features}", "", near, normal, sets)
    print(
        "\nThe combined score, with 95 % bootstrap intervals. AUPR-in takes normal pictures for the positives, "
        "AUPR-out anomalies. FPR95 (normal) is the share of anomalies that pass where 95 % of normal pictures do, "
        "FPR95 (anomalous) the share of normal pictures that are flagged where 95 % of anomalies are.\n"
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
    """Prints how many of normal pictures held out are flagged, beside what chance allows."""
    p_values = detector.p_values_of(scores)
    assert detector.calibration is not None
    print(
        f"\nFalse alarms among {len(scores)} normal pictures held out, by conformal p-values of "
        f"{len(detector.calibration.scores)} others.\n"
    )
    print("| rate asked | flagged | 95 % interval of the share |\n|---|---|---|")
    for rate in (0.01, 0.05, 0.1, 0.2):
        flagged = int((p_values <= rate).sum())
        low, high = binomtest(flagged, len(scores)).proportion_ci(method="exact")
        print(f"| {rate:g} | {flagged / len(scores):.4f} | {low:.4f} .. {high:.4f} |")
    print()


def classes(prefix: str, count: int, references: int, models: int) -> None:
    """Prints AUROC of models of one class each, that class against the other nine."""
    test = open_source(DataConfig("fashion-mnist-test"))
    assert test.labels is not None
    of_class = [(test.labels == k).nonzero().flatten().tolist() for k in range(10)]
    names = ["loss", "losses", "residuals", "combined"]
    areas: dict[str, list[float]] = {}
    for k in range(models):
        settings = DataConfig("fashion-mnist", held_out=0.1, classes=(str(k),), labels=False)
        known, held = split(open_source(settings), settings.held_out)
        folder = Path(f"{prefix}-{k}")
        if not (folder / "model.safetensors").exists():
            learn(k, settings, known, folder)
        network = Remembering(folder)
        normal = rows_of(test, of_class[k][:count])
        others = [row for j in range(10) if j != k for row in of_class[j][: count // 6]]
        anomalous, fresh = rows_of(test, others), rows_of(held, range(min(len(held), 2 * count)))
        scorers = {f"`{n}`": EqmDetector(network, n).fit(fresh).score_samples for n in names}
        scorers |= baselines(rows_of(known, range(min(len(known), references))))
        for name, score in scorers.items():
            areas.setdefault(name, []).append(auroc(score(normal), score(anomalous)))
    print(
        f"One class: models of {models} classes of Fashion-MNIST each on its own, {count} test pictures of the "
        f"class against {count // 6} of every other. AUROC.\n"
    )
    print(
        "| score | "
        + " | ".join(map(str, range(models)))
        + " | mean |\n|---"
        + "|---" * models
        + "|---|"
    )
    for name, found in areas.items():
        print(f"| {name} | " + " | ".join(f"{a:.3f}" for a in [*found, np.mean(found)]) + " |")
    print()


def learn(k: int, settings: DataConfig, known: Source, folder: Path) -> None:
    """Trains a small model of one class, 25,600 pictures seen."""
    recipe = RECIPES["fashion-mnist"]
    config = replace(
        recipe,
        name=f"one-class-{k}",
        data=settings,
        model=UNetConfig(shape=(1, 28, 28), patch=2, width=24, multipliers=(1, 2), blocks=1),
        optimizer=replace(recipe.optimizer, warmup=2000, ema_halflife=2500),
        images=25_600,
        batch_size=64,
        compile=False,
        threads=torch.get_num_threads(),
        watch_every=0,
    )
    for _ in train(config, known, folder):
        pass


def cells(folder: str, count: int, features: str, sheet: Path | None) -> None:
    """Prints AUROC of functional cells held out against defective ones; draws heat maps of three."""
    network = Remembering(folder)
    size = network.config.shape[1]
    functional = DataConfig("elpv", size=size, classes=("functional",), labels=False)
    known, held = split(open_source(functional), functional.held_out)
    if known.fingerprint != network.metadata["data"]["fingerprint"]:
        raise ValueError(f"{folder} was trained on other cells than these: train the recipe elpv")
    seen, normal = everything(known), everything(held)
    defective = everything(open_source(replace(functional, classes=("defective",))))[:count]
    halves = normal[torch.randperm(len(normal), generator=torch.Generator().manual_seed(0))].chunk(
        2
    )
    print(
        f"ELPV: {len(normal)} functional cells held out against {len(defective)} defective ones at "
        f"{size}x{size}, trained on {len(seen)} functional ones. AUROC; what is calibrated is so on one half of "
        "the functional cells and measured on the other, the mean of both ways.\n"
    )
    print("| score | AUROC |\n|---|---|")
    detector = EqmDetector(network)
    for name in ("dot", "gradient-norm", "loss", "losses", "residuals", "combined"):
        areas = []
        for fresh, left in (halves, halves[::-1]):
            detector = EqmDetector(network, name).fit(fresh)
            areas.append(auroc(detector.score_samples(left), detector.score_samples(defective)))
        print(f"| `{name}` | {np.mean(areas):.3f} |", flush=True)
    probe = Probe.of(network, gammas=[0.1])
    low = EqmDetector(network, "loss", probe=probe).fit(normal)
    scorers: dict[str, Scorer] = {
        "loss at gamma 0.1": low.score_samples,
        "largest value of its anomaly map": lambda x: low.anomaly_map(x).flatten(1).amax(1),
        **baselines(seen),
    }
    near = nearest_in(features, seen)
    scorers |= {} if near is None else {f"5th nearest by {features}": near}
    for name, score in scorers.items():
        print(f"| {name} | {auroc(score(normal), score(defective)):.3f} |", flush=True)
    print()
    if sheet is not None:
        order = detector.score_samples(defective).argsort(descending=True)
        chosen = defective[order[[0, len(order) // 8, len(order) // 4]]]
        usual = halves[0][:1]  # calibrated on the other half
        shown = torch.cat([chosen, usual])
        maps = heat(shown, low.anomaly_map(shown))
        grid(torch.cat([shown.expand_as(maps), maps]), columns=4, scale=2).save(sheet)


def speed(model: str, count: int) -> None:
    """Prints seconds of scores of one evaluation beside those of the network alone."""
    network = eqm.from_pretrained(model).requires_grad_(False)
    x = some("fashion-mnist-test", count)

    def alone() -> None:
        with torch.no_grad():
            for batch in x.split(256):
                network(batch)

    probe = Probe.of(network, gammas=[0.3])
    variants: dict[str, Callable[[], object]] = {"the network alone": alone}
    for name in ("dot", "gradient-norm", "loss"):
        detector = EqmDetector(network, name, probe=probe)
        variants[f"`{name}`"] = partial(detector.score_samples, x)
    table(f"{len(x):,} pictures, one evaluation each", variants, 2, torch.device("cpu"))


def line(
    name: str, cost: object, score: Scorer, normal: Tensor, sets: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Prints a row of AUROC; returns the scores of every set, of the normal pictures under ""."""
    found = {"": score(normal)} | {key: score(x) for key, x in sets.items()}
    areas = [f"{auroc(found[''], found[key]):.3f}" for key in sets]
    print(f"| {name} | {cost} | " + " | ".join(areas) + " |", flush=True)
    return found


def baselines(known: Tensor) -> dict[str, Scorer]:
    """Scores that look at pixels alone, fitted on training pictures (N, C, H, W)."""
    rows = known.flatten(1)
    mean = rows.mean(0)
    components = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:64]  # (64, D)
    forest = IsolationForest(random_state=0).fit(rows.numpy())

    def unexplained(x: Tensor) -> Tensor:
        away = x.flatten(1) - mean
        return (away - away @ components.T @ components).norm(dim=1)

    return {
        "64 principal components": unexplained,
        "Isolation Forest": lambda x: torch.from_numpy(-forest.score_samples(x.flatten(1).numpy())),
        "5th nearest by pixels": partial(nearest, rows, torch.nn.Flatten()),
    }


def nearest(known: Tensor, describe: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The distance of each picture to the fifth nearest of `known` (N, D), by what `describe` says."""
    return torch.cdist(describe(x), known).kthvalue(min(5, len(known)), dim=1).values


def nearest_in(features: str, known: Tensor) -> Scorer | None:
    """`nearest` by the features of that name; None, said on standard error, where there are none."""
    try:
        network = open_features(features)
    except ValueError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None

    def describe(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(batch).vector for batch in x.split(64)])

    return partial(nearest, describe(known), describe)


def rebuilt(twin: Remembering, x: Tensor) -> Tensor:
    """How far from each picture a flow ends that starts from it half noised."""
    noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).expand_as(x)
    start = corrupt(x, noise, torch.full((len(x),), 0.5))
    steps = Probe.of(twin).sampling.max_steps
    end = integrate(twin, start, steps=steps, start=0.5, decay=decay_of(twin))
    return (end.x - x).flatten(1).norm(dim=1)


def anomalies(count: int) -> dict[str, Tensor]:
    """Pictures of 28x28 in grey that are no clothes."""
    generator = torch.Generator().manual_seed(0)
    few, shape = min(count, 150), (1, 28, 28)
    faces = torch.from_numpy(pictures.lfw_subset()).float()[:, None] * 2 - 1
    tiles = []
    for kind in (pictures.brick, pictures.grass, pictures.gravel):
        whole = torch.from_numpy(kind()).float()[None, None] / 127.5 - 1
        whole = interpolate(whole, size=(252, 252), mode="area")
        tiles.append(whole.unfold(2, 28, 28).unfold(3, 28, 28).reshape(-1, *shape))
    larger = interpolate(faces, size=(28, 28), mode="bilinear", antialias=True).clamp(-1, 1)
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


def rows_of(source: Source, rows: Sequence[int]) -> Tensor:
    """Those pictures of a source."""
    chosen = torch.tensor(rows)
    return source.batch(chosen, Draws(0, chosen))


def everything(source: Source) -> Tensor:
    """All pictures of a source."""
    return rows_of(source, range(len(source)))


def some(name: str, count: int) -> Tensor:
    """Pictures of a data set at random, the same each time."""
    source = open_source(DataConfig(name))
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    return rows_of(source, order[:count].tolist())


if __name__ == "__main__":
    tyro.cli(main)
