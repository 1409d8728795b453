"""Starts from partial noise: what happens to real images mixed with noise if the noise level is unknown?

EqM descends from the mixture on its usual path. Flow matching, with or without noise conditioning, treats
every start as pure noise. As a control, noise-conditioned flow matching gets the true level.
"""

from itertools import pairwise
from statistics import fmean, pstdev

import torch
from harness import CONSTANT, EQM, FLOW, Bench, judge, model, prepare, run, seedwise, starts
from verdict import Verdict, best, conclude, margins

from eqm.corruption import corrupt
from eqm.descent import GradientDescent, descend, integrate
from eqm.plots import BLUE, GREEN, GREY, RED, drawing

LEVELS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Fractions of noise in the start."""
OURS, FLOWS, BLIND, CONDITIONED = (
    "EqM",
    "Flow matching, from gamma 0",
    "Flow matching, unconditioned",
    "Noise-conditioned flow matching",
)
VARIANTS = {OURS: EQM, FLOWS: FLOW, BLIND: CONSTANT, CONDITIONED: FLOW}
PATHS = {OURS: 250 * 0.0017, BLIND: 1.0}
PAPER = {
    OURS: dict(zip(LEVELS, (59.7, 54.1, 29.5, 7.5, 4.4), strict=True)),
    FLOWS: dict(zip(LEVELS, (59.7, 148.0, 134.0, 153.0, 168.0), strict=True)),
}


def distance(bench: Bench, seed: int, cell: tuple[str, float]) -> float:
    """The distance of the samples that start from noisy images."""
    name, level = cell
    field, real, steps = model(bench, VARIANTS[name], seed), judge(bench), bench.at.nfe
    noise, labels = starts(bench, seed)
    x = corrupt(real.images, noise, torch.full((len(noise),), 1 - level))
    if name in PATHS:
        ends = descend(field, x, labels, rule=GradientDescent(PATHS[name] / steps), max_steps=steps)
    else:
        ends = integrate(field, x, labels, steps=steps, start=(1 - level) * (name == CONDITIONED))
    return real.distance(ends.x.clamp(-1, 1))


def partial_noise(bench: Bench) -> str:
    names = [n for n in VARIANTS if n != BLIND or not (bench.eqm or bench.flow)]
    prepare(bench, *(VARIANTS[name] for name in names))
    cells = [(name, level) for name in names for level in LEVELS if level or name != CONDITIONED]
    found = seedwise(bench, distance, cells)

    with drawing(bench.output / f"partial_noise-{bench.scale}.png", panels=2) as (here, there):
        for name, color in zip(names, (BLUE, RED, GREEN, GREY), strict=False):
            mine = {level: found[name, level] for level in LEVELS if (name, level) in found}
            means, spreads = (list(map(f, mine.values())) for f in (fmean, pstdev))
            here.errorbar(list(mine), means, spreads, fmt="o-", ms=3, color=color, label=name)
            if name in PAPER:
                there.plot(*zip(*PAPER[name].items(), strict=True), "o-", ms=3, color=color)
        here.axhline(bench.floor, color=GREY, ls=":", label="the real images")
        for panel, title in (
            (here, "Here, Frechet distance"),
            (there, "The paper, ImageNet 256x256, FID"),
        ):
            panel.set(xlabel="fraction of noise in the start", yscale="log", title=title)
            panel.invert_xaxis()
        here.legend(fontsize=7)

    rows = [
        {"noise level": level}
        | {name: found.get((name, level), "") for name in names}
        | {f"paper, {name}": PAPER[name][level] for name in PAPER}
        for level in LEVELS
    ]
    ours, partial = [found[OURS, level] for level in LEVELS], LEVELS[1:]
    verdicts = [
        Verdict(
            "EqM improves with less noise in the start (smallest of four gains).",
            "59.7, 54.1, 29.5, 7.5, 4.4",
            best(*(margins(more, less) for more, less in pairwise(ours))),
        ),
        *(
            Verdict(
                f"{name}, gets worse with less noise in the start (smallest of four losses).",
                "59.7 against 148, 134, 153, 168",
                best(*(margins(found[name, level], found[name, 1.0]) for level in partial)),
            )
            for name in names
            if name in (FLOWS, BLIND)
        ),
        Verdict(
            "EqM beats flow matching from gamma 0 at every level below 1 (smallest of four gains).",
            "94, 105, 146, 164",
            best(*(margins(found[FLOWS, level], found[OURS, level]) for level in partial)),
        ),
    ]
    return conclude(bench, "partial_noise", "Starts from partial noise", rows, verdicts)


if __name__ == "__main__":
    run(
        partial_noise,
        {
            "EqM-B/4": "eqm train imagenet256-b-2 --model.patch 4",
            "SiT-B/4": "eqm train imagenet256-b-2 --model.patch 4 --model.noise-conditioning "
            "--objective.decay constant --objective.scale 1.0",
        },
        [
            "# starts: corrupt(latents, noise, 1 - level) for level in 1, .75, .5, .25, 0, 50,000 each;",
            "# then 250 steps: descend({folder}, rule=GradientDescent(0.0028)), or integrate for SiT-B/4",
        ],
    )
