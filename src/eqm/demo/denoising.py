"""Section: partially noised digits, made clean at a noise level that nobody tells."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from eqm.corruption import corrupt
from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import save, show
from eqm.descent import integrate
from eqm.metrics import psnr
from eqm.sampling import starting_noise
from eqm.tasks import denoise

GAMMAS = (0.25, 0.5, 0.75)
FLOW_STEPS = 20
SHOWN = 4


def denoising(material: Material) -> Section:
    """Held-out digits at several noise levels through both models."""
    clean, labels = material.val_data.data, material.val_data.classes
    noise = starting_noise(material.val_data.shape, seeds=range(50_000, 50_000 + len(clean)))
    columns, facts = [], []
    for gamma in GAMMAS:
        noisy = corrupt(clean, noise, torch.full((len(clean),), gamma))
        ours = denoise(material.model, noisy)
        results = {
            "digit": clean,
            "noised": noisy,
            "equilibrium matching": ours.x,
            "flow matching, not told": integrate(material.baseline, noisy, steps=FLOW_STEPS).x,
            "flow matching, told": integrate(
                material.baseline, noisy, steps=FLOW_STEPS, start=gamma
            ).x,
        }
        columns.append({name: images[:SHOWN] for name, images in results.items()})
        level = f"noise level {1 - gamma:g}"
        spent = f"{ours.nfe.float().mean():.0f} evaluations in the mean"
        for name, how in (
            ("equilibrium matching", f"not told the level, {spent}"),
            ("flow matching, not told", f"{FLOW_STEPS} Euler steps from gamma 0, as from noise"),
            ("flow matching, told", f"{FLOW_STEPS} Euler steps from gamma {gamma:g}"),
        ):
            facts += [
                Fact(
                    f"PSNR in dB at {level}: {name}",
                    psnr(results[name], clean).mean().item(),
                    how,
                    ".1f",
                ),
                Fact(
                    f"Recognised at {level}: {name}",
                    material.recognised(results[name], labels),
                    "by the classifier, as the digit it was",
                ),
            ]
    _draw(columns, material)
    return Section(
        "Denoising without being told the level",
        f"{len(clean)} digits never seen in training, mixed with noise, without their labels. The "
        "landscape needs no noise level: the descent starts at the noised picture and stops by its "
        "own gradient. Flow matching that is not told takes every picture for pure noise. At noise "
        "level 0.75 little is left of the digit, and all draw others.",
        "denoising.png",
        tuple(facts),
    )


def _draw(columns: list[dict[str, Tensor]], material: Material) -> None:
    names = list(columns[0])
    figure, axes = plt.subplots(
        len(names), len(columns), figsize=(8, 3.6), layout="constrained", squeeze=False
    )
    for column, gamma, strip in zip(axes.T, GAMMAS, columns, strict=True):
        column[0].set_title(f"noise level {1 - gamma:g}")
        for axis, name in zip(column, names, strict=True):
            show(axis, strip[name])
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    save(figure, material.folder / "denoising.png")
