"""Statement 1 of the paper: the learned gradient vanishes at data.

The gradient norm from noise to data, for EqM and for flow matching without noise conditioning, compared
with the ideal c(gamma) and with the exact field of some training images.
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
"""Number of images to measure at, and number of images of the exact field."""
OURS, FLOWS, OPTIMAL = "EqM", "flow matching, unconditioned", "exact field"
VARIANTS = {OURS: EQM, FLOWS: CONSTANT}


class Slopes(NamedTuple):
    """Mean norms of a field, divided by the norm at noise."""

    way: tuple[float, ...]
    """At validation images mixed with noise, for each of GAMMAS."""
    seen: float
    """At training images."""


def slopes(bench: Bench, seed: int, name: str) -> Slopes:
    training, validation = parts(bench)
    count = EXACT if name == OPTIMAL else COUNT
    images, labels = (part[:count] for part in everything(validation))
    seen, classes = (part[:count] for part in everything(training))
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
            xlabel="gamma of validation images",
            title="Gradient norm / norm at noise",
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
        ends.set_title("At training (colour) and validation (grey) images")
    rows = [
        {
            "field": name,
            "at training images": tuple(each.seen for each in found[name]),
            "at validation images": tuple(each.way[-1] for each in found[name]),
            f"at validation images, gamma {GAMMAS[2]:g}": tuple(
                each.way[2] for each in found[name]
            ),
        }
        for name in names
    ]
    ours, theirs, exact = (tuple(each.seen for each in found[name]) for name in names)
    verdicts = [
        Verdict(
            "At training images, the exact field is below 1 % of its norm at noise.",
            "proved: 0",
            tuple(0.01 - value for value in exact),
        ),
        Verdict(
            "At training images, EqM is below 15 % of its norm at noise.",
            "about 0",
            tuple(0.15 - value for value in ours),
        ),
        Verdict(
            "At training images, EqM is smaller than flow matching, both relative to noise.",
            "not in the paper",
            margins(theirs, ours),
        ),
    ]
    how = (
        f"{bench.basis} Cells: mean gradient norm at {COUNT} images, divided by that at noise. The exact field is "
        f"that of {EXACT} training images and is measured at {EXACT} images. In the exact landscape each training "
        "image is a sharp minimum. A network smooths it: its gradient there falls with training, but not to 0."
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
