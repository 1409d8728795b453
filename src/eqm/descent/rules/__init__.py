"""Rules: how to make one step. A rule is a frozen dataclass of settings; its state is kept outside."""

from eqm.descent.rules.adaptive import Adam, Anderson, BarzilaiBorwein, RMSProp
from eqm.descent.rules.first_order import GradientDescent, NesterovLookahead
from eqm.descent.rules.integrators import AdamsBashforth, Euler, Heun, RungeKutta4
from eqm.descent.rules.langevin import Langevin
from eqm.descent.rules.momentum import HeavyBall, Nesterov
from eqm.descent.rules.multistep import LinearMultistep
from eqm.descent.rules.rule import Rule, Schedule, State, StepResult
from eqm.descent.rules.schedules import CosineSteps, EvenGamma
from eqm.descent.rules.torch_optimizer import TorchOptimizer

__all__ = [
    "Adam",
    "AdamsBashforth",
    "Anderson",
    "BarzilaiBorwein",
    "CosineSteps",
    "Euler",
    "EvenGamma",
    "GradientDescent",
    "HeavyBall",
    "Heun",
    "Langevin",
    "LinearMultistep",
    "StepResult",
    "Nesterov",
    "NesterovLookahead",
    "RMSProp",
    "Rule",
    "RungeKutta4",
    "Schedule",
    "State",
    "TorchOptimizer",
]
