"""Draws docs/assets/landscape.gif: points descend the exact field of a data set in two dimensions.

python docs/tools/landscape.py docs/assets/landscape.gif

The contours show the energy whose gradient is nearest to the field, by weighted least squares on a
grid. The field itself is not quite the gradient of anything (see `eqm.descent.curl`).
"""

import io
import sys
from itertools import islice

import matplotlib
import numpy as np
import torch
from PIL import Image
from scipy.sparse import diags, identity, kron, vstack
from scipy.sparse.linalg import lsqr

import eqm

matplotlib.use("agg")
from matplotlib import pyplot as plt

EXTENT, SIDE = 3.2, 109  # the grid covers -EXTENT..EXTENT in both directions
STEP, FRAMES, EVERY = 0.002, 45, 6  # a path of 0.54; about 0.4 leads from noise to data


def ring():
    """Points (5, 2) around the origin."""
    angle = torch.arange(5) * 2 * torch.pi / 5 + 0.3
    radius = torch.tensor([2.6, 2.1, 2.5, 2.2, 2.4])
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def nearest_energy(field):
    """The energy on the grid (SIDE, SIDE) whose finite differences have the least relative error."""
    ticks = torch.linspace(-EXTENT, EXTENT, SIDE)
    spacing = (ticks[1] - ticks[0]).item()
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    gradient = field(torch.stack([x, y], dim=-1).view(-1, 2), None).view(SIDE, SIDE, 2).numpy()
    difference = diags([-1.0, 1.0], [0, 1], shape=(SIDE - 1, SIDE), dtype=float) / spacing
    along_x, along_y = kron(identity(SIDE), difference), kron(difference, identity(SIDE))
    between_x = (gradient[:, 1:, 0] + gradient[:, :-1, 0]) / 2
    between_y = (gradient[1:, :, 1] + gradient[:-1, :, 1]) / 2
    target = np.concatenate([between_x.ravel(), between_y.ravel()])
    weight = 1 / (0.1 + np.abs(target))
    differences = diags(weight) @ vstack([along_x, along_y])
    energy = lsqr(differences.tocsr(), weight * target, iter_lim=4000)[0].reshape(SIDE, SIDE)
    return ticks.numpy(), energy - energy.min()


def frames():
    """The pictures of the animation."""
    data = ring()
    field = eqm.OptimalField(data)
    ticks, energy = nearest_energy(field)
    noise = torch.randn(150, 2, generator=torch.Generator().manual_seed(3))
    rule = eqm.GradientDescent(STEP)
    steps = eqm.iterate(field, noise, rule=rule)
    places = [noise, *(step.x for step in islice(steps, EVERY - 1, EVERY * FRAMES, EVERY))]

    figure, axes = plt.subplots(figsize=(4.8, 4.8), dpi=100)
    figure.subplots_adjust(0, 0, 1, 1)
    levels = np.quantile(energy, np.linspace(0, 1, 22) ** 1.0)
    axes.contourf(ticks, ticks, energy, levels=levels, cmap="Blues_r", alpha=0.9)
    axes.contour(ticks, ticks, energy, levels=levels, colors="white", linewidths=0.4)
    axes.scatter(*data.T, s=90, facecolors="none", edgecolors="#ffca28", linewidths=2)
    points = axes.scatter(*noise.T, s=11, color="#d81b60", zorder=3)
    axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal")
    axes.set_axis_off()
    for x in places:
        points.set_offsets(x.numpy())
        png = io.BytesIO()
        figure.savefig(png, format="png")
        yield Image.open(png).convert("RGB")


def main():
    images = list(frames())
    palette = images[len(images) // 2].quantize(96, method=Image.Quantize.MAXCOVERAGE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    pause = [600, *[60] * (len(images) - 2), 2500]  # milliseconds a frame
    images[0].save(
        sys.argv[1], save_all=True, append_images=images[1:], duration=pause, loop=0, optimize=True
    )


if __name__ == "__main__":
    main()
