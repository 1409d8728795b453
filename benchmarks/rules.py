"""The quality of samples of each descent rule at equal NFE.

    python benchmarks/rules.py --model eqm-demo/model

For a model of the digits. Every rule starts from the same noise and gets the same NFE (number of function
evaluations) over the same path. The metrics are those of `eqm demo`: the Frechet distance in the
features of a classifier, between samples with the labels of one half of the digits and the other half;
and the accuracy, the fraction of samples that the classifier assigns to their label. Multistep
coefficients are fitted to descents from other noise.
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
"""Values of diverged samples are clamped to this, so that the distance stays finite."""

Make = Callable[[float, int], Rule]
"""Makes a rule from the mean step size and the number of steps."""

# Each rule with its NFE per step. Rules whose velocity accumulates need a path 1 - momentum times as
# long. A learning rate is not a path length; a factor of 5 was best among 2 to 8.
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
"""For fitting coefficients: the number of samples, their first seed, and the steps of their descents."""


def fits(field: Field, shape: tuple[int, ...], labels: Tensor, path: float) -> Make:
    """Makes the rule of n steps that is fitted to descents of many steps, from other noise."""
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
    """Prints the tables, and writes them to results/rules-digits.md if they hold every rule.

    Args:
        model: Folder of a model of the digits, such as `eqm demo` trains.
        paths: Path lengths to try.
        nfe: NFE per sample to try.
        only: Try rules whose names contain this; all by default.
        quick: Only check that it runs, with few NFE; write nothing.
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
        if isinstance(rule, eqm.BarzilaiBorwein | eqm.Anderson):  # their step sizes vary
            stop = stop | eqm.PathLength(path)
        end = eqm.descend(field, noise, first.classes, rule=rule, stop=stop)
        drawn = end.x.nan_to_num().clamp(-FAR, FAR)
        distance = frechet_distance(Moments.of(embed(classifier, drawn)), reference)
        right = 100 * accuracy(classifier, drawn, first.classes)
        spent = end.nfe.double().mean().item()
        return f"{distance:.3f} / {right:.1f}" + (f" ({spent:.1f})" if spent != budget else "")

    real = frechet_distance(Moments.of(embed(classifier, first.data)), reference)
    keep = not (quick or only)
    with record("rules-digits", "Every descent rule on the digits", keep=keep):
        print(
            f"Frechet distance / accuracy in %, of {len(first)} samples, by NFE. In brackets: the mean NFE, if it "
            f"differs from the column. Real digits: {real:.3f}."
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
