"""What a stop for each sample saves, and which rule reaches the quality of 250 steps with the fewest NFE.

    python benchmarks/adaptive.py --name digits --model runs/digits
    python benchmarks/adaptive.py --name fashion --model runs/fashion-mnist --train train.npz --test test.npz

The baseline is the paper's sampler: 250 steps of gradient descent for every sample. From the same noise,
these are compared with it:

* the same rule and steps with a stop for each sample; `eqm.stream` puts a new sample in each free slot;
* longer steps of gradient descent and Adams-Bashforth;
* every rule with few NFE (number of function evaluations) over the same path;
* multistep coefficients fitted to descents from other noise (`eqm.descent.fit_multistep`).

Quality is the Frechet distance to real images in the features of a classifier; lower is better. Real
images in place of samples show the distance of a perfect generator.
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
"""The gradient multiplier of the paper, which fits the path of the baseline."""
WITHIN = 1.03
"""As good as the baseline: at most this multiple of its distance."""
SHOWN = ("GradientDescent (Euler)", "NesterovLookahead", "AdamsBashforth, order 2", FITTED)
"""The rules in the picture."""
SHARES = (0.45, 0.50)
"""The goal of the stop: at most these fractions of the NFE and of the seconds of the baseline."""


@dataclass(frozen=True)
class Found:
    """The cost and quality of one descent of all samples."""

    nfe: float
    seconds: float
    worked: float
    """Seconds of CPU time, which do not depend on other processes."""
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
    """Prints the tables, and writes them and a plot to results/adaptive-NAME.

    Args:
        model: Folder of a trained model.
        name: Name of the result files.
        train: Training data of the classifier.
        test: Reference data; for the digits, half of them.
        count: Number of samples.
        batch: Samples per batch.
        path: Path length at multiplier 4; 250 steps of the paper's 0.0017 give 0.425.
        ratios: Stop a sample at these fractions of its first gradient norm.
        lengths: Multiples of the step size to try with the stop.
        budgets: NFE per sample, for the comparison of rules.
        limit: The NFE within which some rule should be as good as the baseline.
        only: Compare rules whose names contain one of these; all by default.
        transfer: Other models whose fitted coefficients are tried on this model.
        sheet: Write a picture of the baseline and of some rules with 4 NFE to this file.
        classifier_images: Training images of the classifier.
        epochs: Training epochs of the classifier.
        precision: Precision of the network, float32 or bfloat16.
        compile: Compile the network.
        threads: CPU threads; 0 for torch's default.
        quick: Only check that it runs, with few samples; write nothing.
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
        """The sampler of the paper."""
        took = stopwatch()
        ends = []
        for x, classes in zip(noise.split(batch), labels.split(batch), strict=True):
            for _ in range(STEPS):
                x = x - path / STEPS * field(x, classes)
            ends.append(x)
        seconds = took()
        return Found(STEPS, *seconds, distance(torch.cat(ends)))

    if network.fixed_shapes:  # a smaller last batch would be compiled again
        noise, labels = (part[: len(noise) // batch * batch] for part in (noise, labels))
    streamed(eqm.GradientDescent(path / STEPS), None, 2)  # warm
    with record(f"adaptive-{name}", f"Adaptive compute and few NFE: {name}", keep=not quick):
        seen = network.metadata.get("training", {}).get("images_seen")
        print(
            f"{len(noise)} samples in batches of {batch}, {precision}{', compiled' * compile}, no guidance. The "
            f"model saw {seen:,} images; its gradient multiplier is {decay_of(network).scale:g}, scaled to "
            f"{MULTIPLIER} here. Distance of as many real images: {distance(real):.3f}.\n"
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
            shown = range(10)  # one per class
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
    """The field of a network, scaled to the paper's multiplier, so that one path fits every model."""
    times = MULTIPLIER / decay_of(network).scale
    return lambda x, labels: times * network(x, labels)


def stopwatch() -> Callable[[], tuple[float, float]]:
    """Starts a stopwatch; calling it returns the elapsed seconds and the CPU seconds."""
    clock, work = time.perf_counter(), time.process_time()
    return lambda: (time.perf_counter() - clock, time.process_time() - work)


def stops(base: Found, path: float, ratios, lengths, streamed) -> None:  # type: ignore[no-untyped-def]
    """Prints the cost and quality of a stop for each sample."""
    print(
        f"## A stop for each sample\n\nPath at most {path:g}, step size {path / STEPS:g} or a multiple.\n\n"
        "| | NFE | of baseline | seconds | of baseline | CPU time of baseline | distance "
        "| of baseline |\n|---|---|---|---|---|---|---|---|\n"
        f"| baseline: {STEPS} steps | {STEPS} | | {base.seconds:.1f} | | | {base.distance:.3f} | |"
    )
    held: dict[str, list[str]] = {"the same step size": [], "longer steps": []}
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
                held["the same step size" if times == 1 else "longer steps"].append(title)
    print()
    if not ratios:
        return
    for kind, which in held.items():
        print(
            f"At most {SHARES[0]:.0%} of the NFE and {SHARES[1]:.0%} of the seconds, with a distance at most 3 % "
            f"above the baseline, with {kind}: {'; '.join(which) or 'none'}.\n"
        )


def curves(base: Found, path: float, budgets, limit, only, rules, streamed, name) -> None:  # type: ignore[no-untyped-def]
    """Prints and plots the distance of every rule by NFE."""
    print(
        f"## Few NFE\n\nFrechet distance by NFE, path {path:g}, no stop. The baseline has "
        f"{base.distance:.3f}. Bold: at most 3 % above the baseline. In brackets: the mean NFE, if it differs "
        "from the column.\n\n"
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
            if isinstance(rule, eqm.BarzilaiBorwein | eqm.Anderson):  # their step sizes vary
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
    first = f"{good[0][1]}, {good[0][0]:.1f} NFE" if good else "none"
    met = "yes" if good and good[0][0] <= limit else "no"
    print(
        f"\nThe fewest NFE as good as the baseline, here and in all columns to the right: {first}. At most "
        f"{limit} NFE: {met}.\n"
    )
    if name is not None:
        plot(base, lines, RESULTS / f"adaptive-{name}.png")
        print(f"![Distance by NFE](adaptive-{name}.png)")


def plot(base: Found, lines: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Plots the distance of every rule by NFE."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for k, (rule_name, points) in enumerate(lines.items()):
        axes.plot(*zip(*points, strict=True), "o^"[k // 10] + "-", label=rule_name, lw=1)
    axes.axhline(base.distance, color="black", lw=1, ls=":", label=f"baseline: {STEPS} steps")
    axes.set(xlabel="NFE", ylabel="Frechet distance", yscale="log")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=110)


def some(source: Source, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """At most `count` random images of a source, and their labels."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    rows = order[:count].sort().values
    assert source.labels is not None
    return source.batch(rows, SampleRandom(0, rows)), source.labels[rows]


if __name__ == "__main__":
    tyro.cli(main)
