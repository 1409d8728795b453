"""Elementwise optimizers of `torch.optim` as rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from eqm.checks import kind_of
from eqm.descent.rules.rule import GradientOf, State, StepResult


@dataclass(frozen=True)
class TorchOptimizer:
    """Steps with the optimizer that `make` builds from a list of one tensor, the samples.

    The optimizer's state (moments, step counts) is kept for each sample. Samples with the same number of
    steps share one optimizer, which is built again at every step. The path counts the learning rate,
    which is constant.

    Raises ValueError for optimizers that are not elementwise and so mix samples, such as LBFGS, Muon and
    Adafactor; a trial on two small rows detects them.

    >>> from eqm.descent import descend
    >>> halve = TorchOptimizer(lambda samples: torch.optim.SGD(samples, lr=0.5))
    >>> descend(lambda x, labels: x, torch.ones(1, 2), rule=halve, max_steps=2).x
    tensor([[0.2500, 0.2500]])
    """

    make: Callable[[list[Tensor]], Optimizer]
    remembered: dict[str, bool] = field(init=False, repr=False, compare=False)
    """The names of the optimizer's state, and whether each is one number for a sample."""

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise ValueError(
                "make must build a torch.optim optimizer from a list of tensors; "
                f"got {kind_of(self.make)}"
            )
        x = torch.tensor([[1.0, 2.0, -3.0], [40.0, 0.5, 6.0]])
        gradient = torch.tensor([[3.0, -1.0, 0.2], [-0.1, 50.0, 7.0]])
        try:
            together, kept = self._two_steps(x, gradient)
            alone = [self._two_steps(x[i : i + 1], gradient[i : i + 1])[0] for i in range(2)]
        except (TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                "make must build an elementwise torch.optim optimizer from a list of tensors, "
                f"such as torch.optim.Adam; its step failed with: {error}"
            ) from error
        if not torch.allclose(together, torch.cat(alone), rtol=1e-5) or any(
            value.shape not in ((), x.shape) for value in kept.values()
        ):
            raise ValueError(
                "make must build an elementwise optimizer, such as torch.optim.Adam; "
                "this one mixes the samples of a batch"
            )
        object.__setattr__(self, "remembered", {name: kept[name].ndim == 0 for name in kept})

    def init(self, x: Tensor) -> State:
        def blank(number: bool) -> Tensor:
            # float32, because bfloat16 cannot count past 256
            return torch.zeros(len(x), device=x.device) if number else torch.zeros_like(x)

        return tuple(map(blank, self.remembered.values()))

    def step(self, gradient_of: GradientOf, x: Tensor, state: State, steps: Tensor) -> StepResult:
        gradient = gradient_of(x)
        end, learning_rate = x.clone(), 0.0
        memory = tuple(values.clone() for values in state)
        for age in steps.unique().tolist():
            rows = (steps == age).nonzero().flatten()
            held = {
                name: values[rows][0].cpu() if number else values[rows]
                for (name, number), values in zip(self.remembered.items(), memory, strict=True)
            }
            end[rows], held, learning_rate = self._step(
                x[rows], gradient[rows], held if age else {}
            )
            for name, values in zip(self.remembered, memory, strict=True):
                values[rows] = held[name].to(values)
        return StepResult(end, gradient, learning_rate, memory)

    def _step(
        self, x: Tensor, gradient: Tensor, held: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], float]:
        """One step of samples with the same number of steps: samples, state and learning rate."""
        samples = x.detach().clone().requires_grad_()
        samples.grad = gradient.detach().clone()
        optimizer = self.make([samples])
        if held:  # load_state_dict puts each value on the right device
            optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: held}})
        optimizer.step()
        kept = {
            name: torch.as_tensor(value)
            for name, value in sorted(optimizer.state[samples].items())
            if value is not None
        }
        return samples.detach(), kept, float(optimizer.param_groups[0]["lr"])

    def _two_steps(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x, kept, _ = self._step(x, gradient, {})
        x, kept, _ = self._step(x, gradient.flip(1), kept)
        return x, kept
