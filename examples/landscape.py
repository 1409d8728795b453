"""The energy landscape of six points in the plane: particles descend from noise to the data."""

import math

import matplotlib.pyplot as plt
import torch

import eqm


def main() -> None:
    angles = torch.arange(6) * math.tau / 6
    data = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)  # (6, 2)
    field = eqm.OptimalField(
        data
    )  # the field that perfect training would find; it needs no training

    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    solution = eqm.descend(
        field, noise, rule=eqm.GradientDescent(0.01), stop=eqm.PathLength(0.5), max_steps=50
    )
    print(solution)

    side = torch.linspace(-3.5, 3.5, 120)
    grid = torch.cartesian_prod(side, side)
    norms = field(grid, None).norm(dim=1).reshape(120, 120).T
    plt.contourf(side, side, norms, levels=30, cmap="Blues")
    plt.scatter(*noise.T, s=4, c="grey", label="noise")
    plt.scatter(*solution.x.T, s=8, c="tab:orange", label="samples")
    plt.scatter(*data.T, marker="x", c="black", label="data")
    plt.axis((-3.5, 3.5, -3.5, 3.5))
    plt.title("Gradient norm, data, and samples")
    plt.legend()
    plt.savefig("landscape.png")


if __name__ == "__main__":
    main()
