"""Section: the descent, step by step, with the gradient norm beside it."""

from __future__ import annotations

from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from eqm.demo.material import Material
from eqm.demo.report import Fact, Section
from eqm.demo.style import BLUE, GREY, show
from eqm.descent import GradientDescent, iterate
from eqm.pictures import animate, grid
from eqm.sampling import starting_noise

STEP, STEPS = 0.01, 45


def descent(material: Material) -> Section:
    """An animation of ten samples that descend."""
    labels = torch.arange(10)
    noise = starting_noise(material.model.config.shape, seeds=range(20, 30))
    steps = list(islice(iterate(material.model, noise, labels, rule=GradientDescent(STEP)), STEPS))
    norms = torch.stack([step.gradient_norm for step in steps]).numpy()  # (STEPS, 10)
    path = np.arange(1, STEPS + 1) * STEP

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8, 3), width_ratios=(1.9, 1), layout="constrained", dpi=100
    )
    canvas = FigureCanvasAgg(figure)
    shown = show(left, noise, columns=5)
    lines = [right.plot([], [], color=BLUE, alpha=0.55, lw=1.3)[0] for _ in labels]
    stop = material.sampling.gradient_ratio * norms[0].mean()
    right.axhline(stop, color=GREY, ls=":", lw=1)
    right.set(xlim=(0, path[-1]), ylim=(0, norms.max() * 1.05))
    right.set(xlabel="path (step size times steps)", title="gradient norm of each sample")
    frames = []
    for k, step in enumerate(steps):
        shown.set_data(np.asarray(grid(step.x, columns=5)))
        for line, norm in zip(lines, norms.T, strict=True):
            line.set_data(path[: k + 1], norm[: k + 1])
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    plt.close(figure)
    animate(frames, material.folder / "descent.gif", last_seconds=2.5)
    return Section(
        "The descent",
        "One digit of each class, from noise to the end. The gradient norm stays high while the energy is steep, "
        "and falls when the digit is done. Each sample stops where its norm is low (dotted line).",
        "descent.gif",
        (
            Fact(
                "Gradient norm in noise",
                float(norms[0].mean()),
                "mean over the ten, first step",
                ".1f",
            ),
            Fact(
                "Gradient norm at the end",
                float(norms[-1].mean()),
                f"mean over the ten, after {STEPS} steps of gradient descent with step size {STEP}",
                ".1f",
            ),
        ),
    )
