"""A rule of your own: sign descent. On the command line: eqm --import own_rule.py sample MODEL --rule sign-descent."""

from dataclasses import dataclass

from torch import Tensor

import eqm
from eqm.descent import StepResult
from eqm.pictures import grid


@eqm.register("rule", "sign-descent")
@dataclass(frozen=True)
class SignDescent:
    """x_{k+1} = x_k - step_size * mean|gradient| * sign(gradient)."""

    step_size: float

    def init(self, x: Tensor) -> tuple:
        return ()  # this rule remembers nothing between steps

    def step(self, gradient_of, x: Tensor, state: tuple, steps: Tensor) -> StepResult:
        gradient = gradient_of(x)
        size = gradient.abs().flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
        return StepResult(
            x - self.step_size * size * gradient.sign(), gradient, self.step_size, state
        )


def main() -> None:
    model = eqm.from_pretrained("mnist-5k")
    sampling = eqm.Sampling(rule="sign-descent", step_size=0.02, path_length=0.5)
    solution = eqm.tasks.generate(model, [3, 5, 8], sampling=sampling)
    grid(solution.x, columns=3, scale=4).save("own_rule.png")
    print(solution)


if __name__ == "__main__":
    main()
