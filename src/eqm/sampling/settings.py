"""How to sample a model: the settings that travel with its weights; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from eqm.descent import Rule, Stop

RuleName = Literal["gradient-descent", "nesterov-lookahead", "adams-bashforth", "heun"]
RULES = get_args(RuleName)
BOUNDS = [
    ("step_size", 0, float("inf")),
    ("momentum", 0, 1),
    ("path_length", 0, float("inf")),
    ("gradient_ratio", 0, 1),
    ("guidance", 0, float("inf")),
]
MOST_STEPS = 1e9


@dataclass(frozen=True)
class Sampling:
    """The descent that turns noise into samples."""

    rule: RuleName = "nesterov-lookahead"
    """How to move; heun evaluates the model twice a step, the others once."""
    step_size: float = 0.02
    """Size of a step; stable below 0.1 with the default decay, the paper takes 0.0017 to 0.003."""
    momentum: float = 0.3
    """How far the look-ahead looks, for nesterov-lookahead."""
    path_length: float = 0.5
    """Stop a sample after this path, the sum of its step sizes; about 0.4 reaches the data."""
    gradient_ratio: float = 0.0
    """Stop a sample earlier once its gradient is this much of its first one; 0 never does."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is none."""
    guidance_interval: tuple[float, float] | None = None
    """Guide a sample only while the path it has covered is between these two; always by default."""
    multistep_coefficients: tuple[tuple[float, float, float, float], ...] = ()
    """Descend from noise by these rows of a `LinearMultistep`, one a step, as `eqm tune` fits them; what
    starts elsewhere, and all where there are none, goes by the rule."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}; got {self.rule!r}")
        for name, low, high in BOUNDS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number; got {value!r}")
            if not low <= value < high:
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}); got {value:g}")
        if not (self.step_size > 0 and self.path_length > 0):
            raise ValueError(
                "step_size and path_length must be positive; "
                f"got {self.step_size} and {self.path_length}"
            )
        if self.step_size > self.path_length:
            raise ValueError(
                "step_size must not exceed path_length, or one step would be all; "
                f"got {self.step_size} and {self.path_length}"
            )
        if self.path_length / self.step_size > MOST_STEPS:
            raise ValueError(
                f"a path takes at most {MOST_STEPS:g} steps; got path_length {self.path_length:g} in "
                f"steps of {self.step_size:g}"
            )
        if self.guidance_interval is not None:
            object.__setattr__(self, "guidance_interval", _interval(self.guidance_interval))
        object.__setattr__(self, "multistep_coefficients", _rows(self.multistep_coefficients))

    def but(self, **changes: Any) -> Sampling:
        """The same with some settings changed; None leaves one as it is.

        Fitted steps hold for the settings they were fitted with: a change drops them, and so does
        a rule that is asked for by name, were it the stored one."""
        made = {name: value for name, value in changes.items() if value is not None}
        other = replace(self, **made)
        if other == self and "rule" not in made:
            return self
        return replace(other, **{"multistep_coefficients": ()} | made)

    def from_noise(self) -> dict[str, Any]:
        """How samples descend from noise: `rule`, `stop` and `max_steps`, for `stream` and its like."""
        if not self.multistep_coefficients:
            return {
                "rule": self.make_rule(),
                "stop": self.make_stop(),
                "max_steps": self.max_steps,
            }
        from eqm.descent import LinearMultistep, MaxNFE

        steps = len(self.multistep_coefficients)
        return {
            "rule": LinearMultistep(self.multistep_coefficients),
            "stop": MaxNFE(steps),
            "max_steps": steps,
        }

    @property
    def max_steps(self) -> int:
        """The number of steps in which the path is covered."""
        return max(1, ceil(self.path_length / self.step_size - 1e-4))

    def make_rule(self) -> Rule:
        """The rule these settings describe."""
        from eqm.descent import AdamsBashforth, GradientDescent, Heun, NesterovLookahead

        match self.rule:
            case "gradient-descent":
                return GradientDescent(self.step_size)
            case "adams-bashforth":
                return AdamsBashforth(self.step_size)
            case "heun":
                return Heun(self.step_size)
        return NesterovLookahead(self.step_size, self.momentum)

    def make_stop(self) -> Stop:
        """The stop these settings describe."""
        from eqm.descent import PathLength, RelativeGradientNorm

        path = PathLength(self.path_length)
        return path | RelativeGradientNorm(self.gradient_ratio) if self.gradient_ratio else path

    @classmethod
    def of(cls, metadata: dict[str, Any]) -> Sampling:
        """The settings stored with a model under `sampling`, defaults where there are none."""
        stored = metadata.get("sampling", {})
        if not isinstance(stored, dict):
            raise ValueError(f"the model's sampling settings must be an object; got {stored!r}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(stored) - known):
            raise ValueError(
                f"the model's sampling settings hold unknown names: {', '.join(unknown)}"
            )
        return cls(**stored)


def _rows(values: Any) -> tuple[tuple[float, ...], ...]:
    # JSON has no tuples: what was stored comes back as a list of lists.
    if isinstance(values, list | tuple) and all(
        isinstance(row, list | tuple)
        and len(row) == 4
        and all(isinstance(v, int | float) and abs(v) < float("inf") for v in row)
        for row in values
    ):
        return tuple(tuple(map(float, row)) for row in values)
    raise ValueError(f"fitted must be rows of four numbers, one row a step; got {values!r}")


def _interval(values: Any) -> tuple[float, float]:
    # JSON has no tuples: what was stored comes back as a list.
    if isinstance(values, list | tuple) and len(values) == 2:
        low, high = values
        if all(isinstance(v, int | float) for v in values) and 0 <= low < high < float("inf"):
            return float(low), float(high)
    raise ValueError(
        f"guidance_interval must be two path lengths in order, such as 0.1 0.3; got {values!r}"
    )
