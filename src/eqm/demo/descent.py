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
from eqm.files import replacing
from eqm.pictures import grid
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
    frames = [frame.quantize(palette=_palette(), dither=Image.Dither.NONE) for frame in frames]
    with replacing(material.folder / "descent.gif") as file:
        times = [70] * (STEPS - 1) + [2500]
        frames[0].save(
            file, format="gif", save_all=True, append_images=frames[1:], duration=times, loop=0
        )
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


def _palette() -> Image.Image:
    """The colours of the animation: greys and shades of the blue of its lines."""
    greys = np.linspace(0, 255, 33)[:, None].repeat(3, axis=1)
    blue = np.array([int(BLUE[k : k + 2], 16) for k in (1, 3, 5)])
    tints = blue + np.linspace(0, 0.8, 24)[:, None] * (255 - blue)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([greys, tints]).astype(np.uint8).tobytes())
    return palette
