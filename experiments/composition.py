"""Composition: does the sum of the fields of two labels generate samples that show both?

The paper adds the gradients of two labels and shows pictures. Here a classifier counts how often its two
most probable classes are the two labels, for the sum and for each label by itself, from the same noise.
The sum is halved, so that the path has the length of one field.
"""

from statistics import fmean

import torch
from harness import EQM, Bench, judge, model, prepare, run, seedwise, starts
from torch import Tensor
from verdict import Verdict, conclude, margins

import eqm
from eqm.descent import NesterovLookahead, descend
from eqm.plots import BLUE, GREY, drawing

PAIRS = {
    "digits": ((4, 6), (3, 9), (1, 7), (0, 6)),
    "fashion-mnist": ((0, 3), (7, 9), (2, 4), (1, 3)),
}
COUNT, PATH = 200, 250 * 0.0017


def drawn(bench: Bench, seed: int, pair: tuple[int, ...]) -> Tensor:
    """Samples (COUNT, C, H, W) of the mean of the fields of the labels."""
    parts = [eqm.condition(model(bench, EQM, seed), label) for label in pair]
    field = eqm.compose(parts, [1 / len(parts)] * len(parts))
    noise, steps = starts(bench, seed, COUNT)[0], bench.at.nfe
    rule = NesterovLookahead(PATH / steps)
    return descend(field, noise, rule=rule, max_steps=steps).x.clamp(-1, 1)


def both(bench: Bench, seed: int, pair: tuple[int, int]) -> tuple[float, float]:
    """The fraction of samples whose two most probable classes are the pair: for the composition, and
    the larger one of the two single labels."""

    def share(images: Tensor) -> float:
        with torch.no_grad():
            top = judge(bench).classifier(images).topk(2).indices.sort(1).values
        return (top == torch.tensor(sorted(pair))).all(1).double().mean().item()

    alone = max(share(drawn(bench, seed, (label,))) for label in pair)
    return share(drawn(bench, seed, pair)), alone


def composition(bench: Bench) -> str:
    prepare(bench, EQM)
    pairs = PAIRS[bench.scale]
    found = seedwise(bench, both, pairs)
    with drawing(bench.output / f"composition-{bench.scale}.png", panels=3) as (bars, left, right):
        for k, (name, color) in enumerate((("both labels", BLUE), ("one label", GREY))):
            for place, pair in enumerate(pairs):
                values = [shares[k] for shares in found[pair]]
                label = name if place == 0 else None
                bars.bar(place + 0.4 * k, fmean(values), 0.38, color=color, alpha=0.4, label=label)
                bars.plot([place + 0.4 * k] * len(values), values, "o", color=color, ms=3)
        bars.set_xticks([k + 0.2 for k in range(len(pairs))], [f"{a} and {b}" for a, b in pairs])
        bars.set(title="Fraction recognised as both", ylim=(0, 1))
        bars.legend(fontsize=7)
        for panel, some in ((left, pairs[:2]), (right, pairs[2:])):
            strips = [
                (labels, drawn(bench, 0, labels)[:8])
                for a, b in some
                for labels in ((a,), (a, b), (b,))
            ]
            panel.imshow(
                torch.cat([torch.cat(list(x[:, 0]), 1) for _, x in strips]).numpy(),
                cmap="gray",
                vmin=-1,
                vmax=1,
            )
            size = strips[0][1].shape[-1]
            names = [" + ".join(map(str, labels)) for labels, _ in strips]
            panel.set_yticks([size * (k + 0.5) for k in range(len(strips))], names)
            panel.set_xticks([])
            panel.grid(visible=False)
    rows = []
    for pair in pairs:
        together, alone = zip(*found[pair], strict=True)
        rows.append(
            {
                "labels": "{} and {}".format(*pair),
                "recognised as both": together,
                "with one label": alone,
            }
        )
    verdicts = [
        Verdict(
            f"Samples of {a} plus {b} are recognised as both more often than samples of one label.",
            "pictures only",
            margins(*zip(*found[a, b], strict=True)),
        )
        for a, b in pairs
    ]
    how = (
        f"{bench.basis} {COUNT} samples a row, {bench.at.nfe} steps of the Nesterov sampler, no guidance. "
        "Recognised as both: the classifier's two most probable classes are the two labels."
    )
    return conclude(bench, "composition", "Two labels at once", rows, verdicts, how=how)


if __name__ == "__main__":
    run(
        composition,
        {"EqM-XL/2": "eqm train imagenet256-xl-2"},
        ["# panda and valley: eqm.compose([eqm.condition(model, 388), eqm.condition(model, 979)])"],
    )
