"""Draws clothes with a model that comes with the package, and saves them as one picture."""

import eqm
from eqm.pictures import grid


def main() -> None:
    model = eqm.from_pretrained("fashion-mnist")
    solution = eqm.tasks.generate(model, ["sneaker", "coat", "bag"] * 4, seed=0)
    print(solution)  # how many samples converged
    print(f"{solution.nfe.float().mean():.0f} function evaluations (NFE) per sample")
    grid(solution.x, columns=3, scale=2).save("clothes.png")


if __name__ == "__main__":
    main()
