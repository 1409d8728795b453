"""Statement 1 of the paper: the learnt gradient vanishes at data.

Its norm along the way from noise to data, for EqM and for flow matching that is not told the noise
level; beside the ideal, c(gamma), and the exact field of some of the training images.
"""

from statistics import fmean
from typing import NamedTuple

import torch
from harness import CONSTANT, EQM, Bench, everything, model, parts, prepare, run, seedwise
from torch import Generator, Tensor
from verdict import Verdict, conclude, margins

from eqm.corruption import corrupt
from eqm.field import Field
from eqm.optimal import OptimalField
from eqm.plots import BLUE, GREEN, GREY, RED, drawing
from eqm.shapes import norms

GAMMAS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
COUNT, EXACT = 300, 30
"""Images measured at, and images that the exact field is measured at and made of."""
OURS, FLOWS, OPTIMAL = "EqM", "flow matching, not conditioned", "exact field of the images"
VARIANTS = {OURS: EQM, FLOWS: CONSTANT}


class Slopes(NamedTuple):
    """Mean norms of a field over that at noise."""

    way: tuple[float, ...]
    """At held-out images mixed with noise, at each of GAMMAS."""
    seen: float
    """At images that were trained on."""


def slopes(bench: Bench, seed: int, name: str) -> Slopes:
    part_seen, part_held_out = parts(bench)
    count = EXACT if name == OPTIMAL else COUNT
    images, labels = (part[:count] for part in everything(part_held_out))
    seen, classes = (part[:count] for part in everything(part_seen))
    noise = torch.randn(images.shape, generator=Generator().manual_seed(seed))

    def field_of() -> Field:
        if name == OPTIMAL:
            return OptimalField(seen, labels=None)
        return model(bench, VARIANTS[name], seed)

    field = field_of()

    @torch.no_grad()
    def norm(x: Tensor, y: Tensor) -> float:
        return norms(field(x, None if name == OPTIMAL else y)).mean().item()

    first = norm(noise, labels)
    way = [
        norm(corrupt(images, noise, torch.full((len(noise),), g)), labels) / first for g in GAMMAS
    ]
    return Slopes(tuple(way), norm(seen, classes) / first)


def gradient_at_data(bench: Bench) -> str:
    prepare(bench, *VARIANTS.values())
    names = [*VARIANTS, OPTIMAL]
    found = seedwise(bench, slopes, names)
    with drawing(bench.output / f"gradient_at_data-{bench.scale}.png", panels=2) as (way, ends):
        fine = torch.linspace(0, 1, 101)
        for name, color in zip(VARIANTS, (BLUE, RED), strict=True):
            for each in found[name]:
                way.plot(GAMMAS, each.way, "o-", ms=2, lw=1, color=color, alpha=0.7)
            decay = bench.config(VARIANTS[name], 0).objective.make_decay()
            way.plot(
                fine, decay(fine) / decay(fine)[0], "--", color=color, lw=1, label=f"ideal, {name}"
            )
        way.set(
            xlabel="gamma of held-out images",
            title="Norm of the gradient over that at noise",
            ylim=(0, None),
        )
        way.legend(fontsize=7)
        for place, (name, color) in enumerate(zip(names, (BLUE, RED, GREEN), strict=True)):
            for k, values in enumerate(
                zip(*((each.seen, each.way[-1]) for each in found[name]), strict=True)
            ):
                ends.bar(place + 0.4 * k, fmean(values), 0.36, color=(color, GREY)[k], alpha=0.5)
                ends.plot([place + 0.4 * k] * len(values), values, "o", color=color, ms=3)
        ends.set_xticks([0.2, 1.2, 2.2], ["EqM", "flow matching", "exact"])
        ends.set_title("At data: trained on (colour), held out (grey)")
    rows = [
        {
            "field": name,
            "at images trained on": tuple(each.seen for each in found[name]),
            "at held-out images": tuple(each.way[-1] for each in found[name]),
            f"at held-out images, gamma {GAMMAS[2]:g}": tuple(each.way[2] for each in found[name]),
        }
        for name in names
    ]
    ours, theirs, exact = (tuple(each.seen for each in found[name]) for name in names)
    verdicts = [
        Verdict(
            "At images trained on, the gradient of the exact field is below 1 % of that at noise.",
            "proved: 0",
            tuple(0.01 - value for value in exact),
        ),
        Verdict(
            "At images trained on, the trained gradient is below 15 % of that at noise.",
            "about 0",
            tuple(0.15 - value for value in ours),
        ),
        Verdict(
            "It is smaller there than that of flow matching, both over their norm at noise.",
            "not in the paper",
            margins(theirs, ours),
        ),
    ]
    how = (
        f"{bench.basis} Mean norms of the gradient over that at noise, at {COUNT} images; the exact field is of "
        f"{EXACT} images and measured at as many. A network rounds off the point that each training image is in the "
        "exact landscape: its gradient there falls with training and never to 0."
    )
    return conclude(
        bench, "gradient_at_data", "Statement 1: the gradient at data", rows, verdicts, how=how
    )


if __name__ == "__main__":
    run(
        gradient_at_data,
        {"EqM-B/2": EQM},
        ["# norms({folder}(latents, labels)) at latents and at noise"],
    )
