"""How good the samples of each descent rule are at equal cost, as a Markdown table.

    python benchmarks/rules.py --model eqm-demo/model

For a model of the digits. Every rule starts at the same noise and is given the same number of
evaluations of the field, spread over the same path. The measures are those of `eqm demo`: the
Frechet distance, in the features of a classifier, of samples with the labels of one half of the
digits to the other half; and the share that the classifier takes for their label. Weights are
fitted to descents from other noise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tyro
from timing import record
from torch import Tensor

import eqm
from eqm.data import digits
from eqm.descent import Rule, Stop
from eqm.features import accuracy, embed, train_classifier
from eqm.field import Field
from eqm.metrics import Moments, frechet_distance
from eqm.sampling import starting_noise

MOMENTUM = 0.3
FAR = 100
"""Samples that diverged are cut off here, so that the distance stays a number."""

Make = Callable[[float, int], Rule]
"""A rule from the mean size of its steps and their number."""

# How each rule is made, and how often it evaluates the field in a step. Where velocity builds up,
# the same way takes a path 1 - momentum times as long; a learning rate is no path at all, and 5
# times as much was best of 2 to 8.
RULES: dict[str, tuple[Make, int]] = {
    "GradientDescent (Euler)": (lambda size, n: eqm.GradientDescent(size), 1),
    "GradientDescent, CosineSteps": (
        lambda size, n: eqm.GradientDescent(eqm.CosineSteps(size * n, n)),
        1,
    ),
    "GradientDescent, EvenGamma (its own path)": (
        lambda size, n: eqm.GradientDescent(eqm.EvenGamma(eqm.TruncatedDecay(), n)),
        1,
    ),
    "NesterovLookahead": (lambda size, n: eqm.NesterovLookahead(size, MOMENTUM), 1),
    "NesterovLookahead, CosineSteps": (
        lambda size, n: eqm.NesterovLookahead(eqm.CosineSteps(size * n, n), MOMENTUM),
        1,
    ),
    "NesterovLookahead, EvenGamma (its own path)": (
        lambda size, n: eqm.NesterovLookahead(eqm.EvenGamma(eqm.TruncatedDecay(), n), MOMENTUM),
        1,
    ),
    "Nesterov, path x 0.7": (lambda size, n: eqm.Nesterov(0.7 * size, MOMENTUM), 1),
    "HeavyBall, path x 0.7": (lambda size, n: eqm.HeavyBall(0.7 * size, MOMENTUM), 1),
    "Heun": (lambda size, n: eqm.Heun(size), 2),
    "RungeKutta4": (lambda size, n: eqm.RungeKutta4(size), 4),
    "AdamsBashforth, order 2": (lambda size, n: eqm.AdamsBashforth(size), 1),
    "AdamsBashforth, order 3": (lambda size, n: eqm.AdamsBashforth(size, order=3), 1),
    "AdamsBashforth, order 2, CosineSteps": (
        lambda size, n: eqm.AdamsBashforth(eqm.CosineSteps(size * n, n)),
        1,
    ),
    "AdamsBashforth, order 2, EvenGamma (its own path)": (
        lambda size, n: eqm.AdamsBashforth(eqm.EvenGamma(eqm.TruncatedDecay(), n)),
        1,
    ),
    "BarzilaiBorwein, up to 1.5 times the size": (
        lambda size, n: eqm.BarzilaiBorwein(size, size / 4, 1.5 * size),
        1,
    ),
    "Anderson": (lambda size, n: eqm.Anderson(size), 1),
    "Adam (0.5, 0.9), CosineSteps, path x 5": (
        lambda size, n: eqm.Adam(eqm.CosineSteps(5 * size * n, n), 0.5, 0.9),
        1,
    ),
    "RMSProp (0.9), CosineSteps, path x 5": (
        lambda size, n: eqm.RMSProp(eqm.CosineSteps(5 * size * n, n), 0.9),
        1,
    ),
    "Langevin, temperature 0.01": (lambda size, n: eqm.Langevin(size, 0.01), 1),
}

FITTED = "LinearMultistep, fitted"
CALIBRATED, CALIBRATION, CAREFUL = 100, 1_000_000, 100
"""Samples that weights are fitted to, the seed of their first, and the steps of their descents."""


def fits(field: Field, shape: tuple[int, ...], labels: Tensor, path: float) -> Make:
    """Makes the rule of n steps that is fitted to careful descents, of the last labels from noise of
    their own."""
    labels = labels[-CALIBRATED:]
    first = CALIBRATION
    noise = starting_noise(shape, seeds=range(first, first + len(labels)))
    careful = eqm.AdamsBashforth(path / CAREFUL)
    way = eqm.descent.record_trajectory(field, noise, labels, rule=careful, at=range(CAREFUL + 1))
    return lambda size, n: eqm.descent.fit_multistep(field, way, labels, steps=n)


def main(
    model: Path,
    paths: tuple[float, ...] = (0.4, 0.5),
    nfe: tuple[int, ...] = (3, 5, 10, 20, 40),
    only: str = "",
    quick: bool = False,
) -> None:
    """Prints the tables; keeps them in results/rules-digits.md if they hold every rule.

    Args:
        model: Folder of a model of the digits, such as `eqm demo` trains.
        paths: Total paths to try.
        evaluations: Evaluations of the field a sample is given.
        only: Part of the names of the rules to try, all by default.
        quick: Try whether it runs, with few evaluations, and keep nothing.
    """
    if quick:
        paths, nfe = paths[:1], nfe[:1]
    field = eqm.from_pretrained(model)
    seen, _ = digits().split(0.2)
    classifier = train_classifier(seen.data, seen.classes, num_classes=seen.num_classes)
    first, second = digits().split(0.5)
    reference = Moments.of(embed(classifier, second.data))
    noise = starting_noise(first.shape, seeds=range(len(first)))

    def measures(rule: Rule, path: float, budget: int) -> str:
        stop: Stop = eqm.MaxNFE(budget)
        if isinstance(rule, eqm.BarzilaiBorwein | eqm.Anderson):  # they stretch their steps
            stop = stop | eqm.PathLength(path)
        end = eqm.descend(field, noise, first.classes, rule=rule, stop=stop)
        drawn = end.x.nan_to_num().clamp(-FAR, FAR)
        distance = frechet_distance(Moments.of(embed(classifier, drawn)), reference)
        recognised = 100 * accuracy(classifier, drawn, first.classes)
        spent = end.nfe.double().mean().item()
        return f"{distance:.3f} / {recognised:.1f}" + (f" ({spent:.1f})" if spent != budget else "")

    real = frechet_distance(Moments.of(embed(classifier, first.data)), reference)
    keep = not (quick or only)
    with record("rules-digits", "Every rule of descent on the digits", keep=keep):
        print(
            f"Frechet distance / recognised in %, of {len(first)} samples; the mean of the evaluations "
            f"in brackets where it is not that of the column. Real digits: {real:.3f}."
        )
        for path in paths:
            print(f"\nPath {path:g}\n\n| rule | {' | '.join(map(str, nfe))} |")
            print("|---" * (len(nfe) + 1) + "|")
            fitted = fits(field, field.config.shape, first.classes, path)
            for name, (make, cost) in (RULES | {FITTED: (fitted, 1)}).items():
                if only.lower() in name.lower():
                    steps = [max(1, budget // cost) for budget in nfe]
                    cells = [
                        measures(make(path / n, n), path, budget)
                        for n, budget in zip(steps, nfe, strict=True)
                    ]
                    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
