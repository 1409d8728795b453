"""Section: detecting images that are not digits."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import LogLocator, StrMethodFormatter
from torch import Tensor

from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import BLUE, RED, save, show
from eqm.metrics import auroc
from eqm.tasks import matching_error


def detection(material: Material) -> Section:
    """Scores of validation digits and of four kinds of impostors made from them."""
    digits = material.val_data.data
    normal = matching_error(material.model, digits)
    figure, axes = plt.subplots(
        2, 4, figsize=(8, 3.4), layout="constrained", height_ratios=(1, 1.5)
    )
    others = {name: matching_error(material.model, x) for name, x in impostors_of(digits).items()}
    every = torch.cat([normal, *others.values()])
    edges = np.geomspace(every.min(), every.max(), 50)
    facts = []
    for (name, impostors), (above, below) in zip(impostors_of(digits).items(), axes.T, strict=True):
        scores = others[name]
        area = auroc(normal, scores)
        facts.append(
            Fact(
                f"AUROC, digits against {name}",
                area,
                f"{len(digits)} validation digits, {len(impostors)} impostors",
            )
        )
        show(above, impostors[:3])
        above.set_title(name)
        below.hist(normal.numpy(), edges, color=BLUE, alpha=0.75, label="digits")
        below.hist(scores.numpy(), edges, color=RED, alpha=0.65, label="impostors")
        below.set(xscale="log", xlabel="score", yticks=[], title=f"AUROC {area:.3f}")
        below.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        below.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        below.minorticks_off()
    axes[1, 0].legend(fontsize=7)
    save(figure, material.folder / "detection.png")
    return Section(
        "Detecting images that are not digits",
        "The score is the training loss at two noise levels (gamma .5 and .7) with eight fixed draws of noise and "
        "without labels: 16 evaluations per image. A higher score means less like a digit. No impostor was used in "
        "training. The hardest impostors are digits whose upper and lower halves are exchanged.",
        "detection.png",
        tuple(facts),
    )


def impostors_of(digits: Tensor) -> dict[str, Tensor]:
    """Images (N, 1, H, W) that are not digits, made from digits."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(digits[0].numel(), generator=generator)
    upper, lower = digits.chunk(2, dim=2)
    return {
        "noise": torch.rand(digits.shape, generator=generator) * 2 - 1,
        "inverted": -digits,
        "shuffled pixels": digits.flatten(1)[:, order].view_as(digits),
        "scrambled halves": torch.cat([lower, upper], dim=2),
    }
