"""How to sample a model: the settings that are stored with its weights; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from eqm.checks import check_positive
from eqm.registry import make

if TYPE_CHECKING:
    from eqm.descent import Rule, Stop

BOUNDS = [
    ("step_size", 0, float("inf")),
    ("momentum", 0, 1),
    ("path_length", 0, float("inf")),
    ("gradient_ratio", 0, 1),
    ("guidance", 0, float("inf")),
]
MOST_STEPS = 1e9
Options = tuple[tuple[str, float], ...]
"""Further settings of a registered part: pairs of name and value."""


@dataclass(frozen=True)
class Sampling:
    """The descent that turns noise into samples.

    Rule and stop are looked up by name when the descent begins: a rule or stop of your own must be
    registered by then (`eqm.register`).
    """

    rule: str = "nesterov-lookahead"
    """The update rule: any registered rule. heun evaluates the model twice a step."""
    step_size: float = 0.02
    """Size of a step; stable below 0.1 with the default decay. The paper takes 0.0017 to 0.003."""
    momentum: float = 0.3
    """Momentum, for rules that have one."""
    path_length: float = 0.5
    """Stop a sample after this path, the sum of its step sizes; about 0.4 reaches the data."""
    gradient_ratio: float = 0.0
    """Stop a sample earlier, when its gradient norm falls below this fraction of the first one; 0
    turns this off."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is none."""
    guidance_interval: tuple[float, float] | None = None
    """Guide a sample only while its path is between these two lengths; by default always."""
    multistep_coefficients: tuple[tuple[float, float, float, float], ...] = ()
    """Rows of a `LinearMultistep`, one a step, fitted by `eqm tune`. If there are any, samples from
    noise take these steps; other descents always use the rule."""
    stop: str = ""
    """One more stop, any registered stop; by default none."""
    rule_options: Options = ()
    """Further settings of the rule, as pairs: NAME VALUE."""
    stop_options: Options = ()
    """Further settings of the stop, as pairs: NAME VALUE."""

    def __post_init__(self) -> None:
        if not isinstance(self.rule, str) or not isinstance(self.stop, str):
            raise ValueError(f"rule and stop must be names; got {self.rule!r} and {self.stop!r}")
        for name, low, high in BOUNDS:
            value = getattr(self, name)
            if not _is_number(value):
                raise ValueError(f"{name} must be a number; got {value!r}")
            if not low <= value < high:
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}); got {value:g}")
        check_positive(step_size=self.step_size, path_length=self.path_length)
        if self.step_size > self.path_length:
            raise ValueError(
                "step_size must not exceed path_length; "
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
        for name in ("rule_options", "stop_options"):
            object.__setattr__(self, name, _options(name, getattr(self, name)))

    def but(self, **changes: Any) -> Sampling:
        """The same with some settings changed; None keeps a setting.

        Any change drops the fitted steps, because they hold only for the settings they were fitted
        with; naming a rule drops them too. Another rule or stop drops the options of the one before.
        """
        made = {name: value for name, value in changes.items() if value is not None}
        other = replace(self, **made)
        if other == self and "rule" not in made:
            return self
        dropped: dict[str, Any] = {"multistep_coefficients": ()}
        for part in ("rule", "stop"):
            if getattr(other, part) != getattr(self, part):
                dropped[f"{part}_options"] = ()
        return replace(other, **dropped | made)

    @property
    def max_steps(self) -> int:
        """The number of steps that cover the path; a sample makes no more."""
        return max(1, ceil(self.path_length / self.step_size - 1e-4))

    def make_rule(self) -> Rule:
        """The rule of these settings. Raises ValueError for a rule that is not registered, and for
        options that it does not take."""
        rule: Rule = make("rule", self.rule, asdict(self), self.rule_options)
        return rule

    def make_stop(self) -> Stop:
        """The stop of these settings. Raises ValueError as `make_rule` does."""
        from eqm.descent import PathLength, RelativeGradientNorm

        stop: Stop = PathLength(self.path_length)
        if self.gradient_ratio:
            stop = stop | RelativeGradientNorm(self.gradient_ratio)
        if self.stop:
            stop = stop | make("stop", self.stop, asdict(self), self.stop_options)
        return stop

    @classmethod
    def of(cls, metadata: dict[str, Any]) -> Sampling:
        """The settings stored with a model under `sampling`; defaults if there are none."""
        stored = metadata.get("sampling", {})
        if not isinstance(stored, dict):
            raise ValueError(f"the model's sampling settings must be an object; got {stored!r}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(stored) - known):
            raise ValueError(
                f"the model's sampling settings hold unknown names: {', '.join(unknown)}"
            )
        return cls(**stored)


# JSON has no tuples: what was stored comes back as lists.


def _rows(values: Any) -> tuple[tuple[float, ...], ...]:
    if isinstance(values, list | tuple) and all(
        isinstance(row, list | tuple) and len(row) == 4 and all(map(_is_finite, row))
        for row in values
    ):
        return tuple(tuple(map(float, row)) for row in values)
    raise ValueError(
        f"multistep_coefficients must be rows of four numbers, one row a step; got {values!r}"
    )


def _interval(values: Any) -> tuple[float, float]:
    if isinstance(values, list | tuple) and len(values) == 2 and all(map(_is_finite, values)):
        low, high = values
        if 0 <= low < high:
            return float(low), float(high)
    raise ValueError(
        f"guidance_interval must be two path lengths in order, such as 0.1 0.3; got {values!r}"
    )


def _options(name: str, values: Any) -> Options:
    if isinstance(values, list | tuple) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and _is_finite(pair[1])
        for pair in values
    ):
        return tuple((key, value) for key, value in values)
    raise ValueError(f"{name} must be pairs of a name and a number; got {values!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and isfinite(value)
