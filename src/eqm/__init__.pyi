from . import data, descent, metrics, models, recipes, tasks, train
from .corruption import ConstantDecay, LinearDecay, PiecewiseDecay, TruncatedDecay, corrupt
from .descent import (
    Descent,
    GradientDescent,
    GradientNorm,
    NesterovLookahead,
    Outcome,
    PathLength,
    descend,
    iterate,
)
from .energy import DotEnergy, NormEnergy
from .field import Field, compose, condition, guide
from .models import from_pretrained, save_pretrained
from .objective import EquilibriumMatching, FlowMatching
from .optimal import OptimalField

__all__ = [
    "ConstantDecay",
    "Descent",
    "DotEnergy",
    "EquilibriumMatching",
    "Field",
    "FlowMatching",
    "GradientDescent",
    "GradientNorm",
    "LinearDecay",
    "NesterovLookahead",
    "NormEnergy",
    "OptimalField",
    "Outcome",
    "PathLength",
    "PiecewiseDecay",
    "TruncatedDecay",
    "compose",
    "condition",
    "corrupt",
    "data",
    "descend",
    "descent",
    "from_pretrained",
    "guide",
    "iterate",
    "metrics",
    "models",
    "recipes",
    "save_pretrained",
    "tasks",
    "train",
]
