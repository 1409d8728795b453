"""What adaptive compute saves, and which rule comes to the quality of 250 steps soonest.

    python benchmarks/adaptive.py --name digits --model runs/digits
    python benchmarks/adaptive.py --name fashion --model runs/fashion-mnist --train train.npz --test test.npz

The base is the loop of the paper: 250 steps of plain gradient descent for every sample, a batch at a
time. Beside it, from the same noise: the same rule and steps with a stop for each sample, where the
next sample takes the place of one that ends (`eqm.stream`); longer steps, plain ones and those of
Adams-Bashforth, which keep to the flow; every rule
at a few evaluations a sample over the same path; and steps with weights fitted to the flow of other
noise (`eqm.descent.fit_multistep`). Quality is the Frechet distance to real images in the
features of a classifier, so that lower is better; the same samples drawn from real images give the
distance that chance alone makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rules import FAR, FITTED, RULES, fits
from timing import RESULTS, record
from torch import Tensor

import eqm
from eqm.corruption import decay_of
from eqm.data import DataConfig, Source, digits, open_source
from eqm.descent import Rule, Stop, collect
from eqm.features import embed, train_classifier
from eqm.field import Field
from eqm.metrics import Moments, frechet_distance
from eqm.models import Network, for_inference
from eqm.models.inference import Frozen
from eqm.pictures import grid
from eqm.randomness import SampleRandom
from eqm.sampling import starting_noise

STEPS = 250
MULTIPLIER = 4
"""Of the paper, for which its 250 steps have the length of the base."""
WITHIN = 1.03
"""Of the distance of the base: as good."""
SHOWN = ("GradientDescent (Euler)", "NesterovLookahead", "AdamsBashforth, order 2", FITTED)
"""Rules of the picture."""
SHARES = (0.45, 0.50)
"""Of the evaluations and of the seconds of the base: what the stop is to come below."""


@dataclass(frozen=True)
class Found:
    """What a descent of all samples came to."""

    nfe: float
    seconds: float
    worked: float
    """Seconds of processor time, which do not depend on what else runs on the machine."""
    distance: float


def main(
    model: Path,
    name: str = "digits",
    train: str = "digits",
    test: str | None = None,
    count: int = 1000,
    batch: int = 100,
    path: float = 0.425,
    ratios: tuple[float, ...] = (0.3, 0.25, 0.2, 0.15, 0.1),
    lengths: tuple[int, ...] = (1, 2, 4),
    budgets: tuple[int, ...] = (3, 4, 5, 6, 8, 10, 15, 25),
    limit: int = 15,
    only: tuple[str, ...] = ("",),
    transfer: tuple[str, ...] = (),
    sheet: Path | None = None,
    classifier_images: int = 10_000,
    epochs: int = 20,
    precision: str = "float32",
    compile: bool = False,
    threads: int = 0,
    quick: bool = False,
) -> None:
    """Prints the tables; keeps them and a plot as results/adaptive-NAME.

    Args:
        model: Folder of a trained model.
        name: Of the results.
        train: Data for the classifier.
        test: Data to be like; for the digits, half of them.
        count: Samples.
        batch: Samples at a time.
        path: Total path of a descent at multiplier 4; 250 steps of the paper's 0.0017 make 0.425.
        ratios: Shares of its first gradient norm at which a sample stops.
        lengths: With the stop, steps are so many times as long.
        budgets: Evaluations of the field a sample is given, for the comparison of rules.
        limit: Evaluations in which some rule is to be as good as the base.
        only: Parts of the names of the rules to compare, all by default.
        transfer: Other models, whose fitted weights are tried on this one too.
        sheet: Picture to write: the base, and below it what some rules come to in 4 evaluations.
        classifier_images: Of `train`, for the classifier.
        epochs: Passes over them.
        precision: Of the network, float32 or bfloat16.
        compile: Compile the network.
        threads: CPU threads; 0 leaves it to torch.
        quick: Try whether it runs, with a few samples, and keep nothing.
    """
    if threads:
        torch.set_num_threads(threads)
    if quick:
        count, batch, epochs, classifier_images = min(count, 100), 50, 1, 500
        ratios, lengths, budgets = ratios[-1:], lengths[:2], budgets[:2]
    network = for_inference(eqm.from_pretrained(model), precision=precision, compile=compile)  # type: ignore[arg-type]
    field = paced(network)
    if test is None:
        teaching, _ = digits().split(0.2)
        first, second = digits().split(0.5)
    else:
        teaching, second = open_source(DataConfig(train)), open_source(DataConfig(test))
        first = teaching
    classifier = train_classifier(
        *some(teaching, classifier_images), num_classes=teaching.num_classes, epochs=epochs
    )
    reference = Moments.of(embed(classifier, some(second, len(second))[0]))
    real, labels = some(first, min(count, len(first)), seed=1)
    noise = starting_noise(second.shape, seeds=range(len(real)))

    def distance(x: Tensor) -> float:
        drawn = x.nan_to_num().clamp(-FAR, FAR)
        return frechet_distance(Moments.of(embed(classifier, drawn)), reference)

    def streamed(rule: Rule, stop: Stop | None, most: int) -> Found:
        took = stopwatch()
        ends = collect(
            eqm.stream(
                field,
                noise,
                labels.tolist(),
                rule=rule,
                stop=stop,
                batch_size=batch,
                max_steps=most,
                fixed=network.fixed_shapes,
            )
        )
        seconds = took()
        return Found(ends.nfe.double().mean().item(), *seconds, distance(ends.x))

    def fixed() -> Found:
        """The loop of the paper."""
        took = stopwatch()
        ends = []
        for x, classes in zip(noise.split(batch), labels.split(batch), strict=True):
            for _ in range(STEPS):
                x = x - path / STEPS * field(x, classes)
            ends.append(x)
        seconds = took()
        return Found(STEPS, *seconds, distance(torch.cat(ends)))

    if network.fixed_shapes:  # the loop would be compiled anew for a smaller last batch
        noise, labels = (part[: len(noise) // batch * batch] for part in (noise, labels))
    streamed(eqm.GradientDescent(path / STEPS), None, 2)  # warm
    with record(
        f"adaptive-{name}", f"Adaptive compute and few evaluations: {name}", keep=not quick
    ):
        seen = network.metadata.get("training", {}).get("images_seen")
        print(
            f"{len(noise)} samples, {batch} at a time, {precision}{', compiled' * compile}, no guidance; "
            f"model trained on {seen:,} images, with multiplier {decay_of(network).scale:g}, its field brought to "
            f"{MULTIPLIER}. Distance of as many real images: {distance(real):.3f}.\n"
        )
        base = fixed()
        stops(base, path, ratios, lengths, streamed)
        rules = RULES | {FITTED: (fits(field, second.shape, labels, path), 1)}
        for other in transfer:
            net = eqm.from_pretrained(other)
            title = f"{FITTED} on {Path(other).name}"
            rules[title] = (
                fits(paced(net), net.config.shape, labels % net.config.num_classes, path),
                1,
            )
        curves(base, path, budgets, limit, only, rules, streamed, name if not quick else None)
        if sheet:
            shown = range(10)  # one of each class of the ten
            start = starting_noise(second.shape, seeds=shown)
            ends = [
                eqm.descend(field, start, torch.tensor(shown), rule=rule, max_steps=steps).x
                for rule, steps in [
                    (eqm.GradientDescent(path / STEPS), STEPS),
                    *((rules[each][0](path / 4, 4), 4) for each in SHOWN),
                ]
            ]
            grid(torch.cat(ends), columns=10, scale=max(1, 56 // second.shape[-1])).save(sheet)


def paced(network: Network | Frozen) -> Field:
    """The field of a network as it would be at the paper's multiplier: one path suits all."""
    times = MULTIPLIER / decay_of(network).scale
    return lambda x, labels: times * network(x, labels)


def stopwatch() -> Callable[[], tuple[float, float]]:
    """The seconds since now, by the clock and of processor time, when it is called."""
    clock, work = time.perf_counter(), time.process_time()
    return lambda: (time.perf_counter() - clock, time.process_time() - work)


def stops(base: Found, path: float, ratios, lengths, streamed) -> None:  # type: ignore[no-untyped-def]
    """Prints what a stop for each sample comes to."""
    print(
        f"## A stop for every sample\n\nPath {path:g} at most, in steps of {path / STEPS:g} and longer.\n\n"
        "| | evaluations | of the base | seconds | of the base | of its processor time | distance "
        "| of the base |\n|---|---|---|---|---|---|---|---|\n"
        f"| base: {STEPS} steps | {STEPS} | | {base.seconds:.1f} | | | {base.distance:.3f} | |"
    )
    held: dict[str, list[str]] = {"steps as long": [], "longer steps": []}
    for make, times in [
        *((eqm.GradientDescent, times) for times in lengths),
        *((eqm.AdamsBashforth, times) for times in lengths if times > 1),
    ]:
        rule, most = make(times * path / STEPS), STEPS // times
        for ratio in ratios if times == 1 else (None, *ratios):
            stop = None if ratio is None else eqm.RelativeGradientNorm(ratio)
            found = streamed(rule, stop, most)
            end = "no stop" if ratio is None else f"gradient at {ratio:g}"
            title = f"{make.__name__}, steps x {times}, {end}"
            print(
                f"| {title} | {found.nfe:.1f} | {found.nfe / base.nfe:.0%} | "
                f"{found.seconds:.1f} | {found.seconds / base.seconds:.0%} | "
                f"{found.worked / base.worked:.0%} | "
                f"{found.distance:.3f} | {found.distance / base.distance:.1%} |"
            )
            if (
                ratio is not None
                and found.nfe <= SHARES[0] * base.nfe
                and found.seconds <= SHARES[1] * base.seconds
                and found.distance <= WITHIN * base.distance
            ):
                held["steps as long" if times == 1 else "longer steps"].append(title)
    print()
    if not ratios:
        return
    for kind, which in held.items():
        print(
            f"At most {SHARES[0]:.0%} of the evaluations and {SHARES[1]:.0%} of the seconds at a distance "
            f"within 3 %, with {kind}: {'; '.join(which) or 'none'}.\n"
        )


def curves(base: Found, path: float, budgets, limit, only, rules, streamed, name) -> None:  # type: ignore[no-untyped-def]
    """Prints, and plots, the distance of every rule by evaluations."""
    print(
        f"## Few evaluations\n\nFrechet distance by evaluations a sample, path {path:g}, no stop; "
        f"the base has {base.distance:.3f}. What is within 3 % of it, or better, is bold; the mean of "
        "the evaluations is in brackets where it is not that of the column.\n\n"
        f"| rule | {' | '.join(map(str, budgets))} |\n{'|---' * (len(budgets) + 1)}|"
    )
    lines: dict[str, list[tuple[float, float]]] = {}
    for rule_name, (make, cost) in rules.items():
        if not any(part.lower() in rule_name.lower() for part in only):
            continue
        cells = []
        for budget in budgets:
            n = max(1, budget // cost)
            rule = make(path / n, n)
            stop: Stop = eqm.MaxNFE(budget)
            if isinstance(rule, eqm.BarzilaiBorwein | eqm.Anderson):  # they stretch their steps
                stop = stop | eqm.PathLength(path)
            found = streamed(rule, stop, budget)
            lines.setdefault(rule_name, []).append((found.nfe, found.distance))
            mark = "**" if found.distance <= WITHIN * base.distance else ""
            off = abs(found.nfe - budget) > 0.05
            cells.append(f"{mark}{found.distance:.3f}{mark}" + f" ({found.nfe:.1f})" * off)
        print(f"| {rule_name} | {' | '.join(cells)} |")
    good = sorted(
        (points[k][0], rule_name)
        for rule_name, points in lines.items()
        for k in range(len(points))
        if all(distance <= WITHIN * base.distance for _, distance in points[k:])
    )
    first = f"{good[0][1]}, {good[0][0]:.1f} evaluations" if good else "none"
    met = "holds" if good and good[0][0] <= limit else "does not hold"
    print(
        f"\nSoonest as good as the base, there and with more: {first}. In at most {limit}: {met}.\n"
    )
    if name is not None:
        plot(base, lines, RESULTS / f"adaptive-{name}.png")
        print(f"![Distance by evaluations](adaptive-{name}.png)")


def plot(base: Found, lines: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Draws the distance of every rule by its evaluations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for k, (rule_name, points) in enumerate(lines.items()):
        axes.plot(*zip(*points, strict=True), "o^"[k // 10] + "-", label=rule_name, lw=1)
    axes.axhline(base.distance, color="black", lw=1, ls=":", label=f"base: {STEPS} steps")
    axes.set(xlabel="evaluations a sample", ylabel="Frechet distance", yscale="log")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=110)


def some(source: Source, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """So many images of a source at random, all if there are fewer, and their labels."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    rows = order[:count].sort().values
    assert source.labels is not None
    return source.batch(rows, SampleRandom(0, rows)), source.labels[rows]


if __name__ == "__main__":
    tyro.cli(main)
