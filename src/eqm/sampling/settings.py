"""How to sample a model: the settings that are stored with its weights; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

from eqm.registry import make
from eqm.schema import Finite, Fraction, Meta, NonNegative, Positive, check_fields, convert

if TYPE_CHECKING:
    from eqm.descent import Rule, Stop

MOST_STEPS = 1e9
Share = Annotated[float, Meta(ge=0, le=1)]
Options = tuple[tuple[str, Finite], ...]
"""Further settings of a registered part: pairs of name and value."""


@dataclass(frozen=True)
class Sampling:
    """The descent that turns noise into samples.

    Rule and stop are looked up by name when the descent begins: a rule or stop of your own must be
    registered by then (`eqm.register`).
    """

    rule: str = "nesterov-lookahead"
    """The update rule: any registered rule. heun evaluates the model twice a step."""
    step_size: Positive = 0.02
    """Size of a step; stable below 0.1 with the default decay. The paper takes 0.0017 to 0.003."""
    momentum: Fraction = 0.3
    """Momentum, for rules that have one."""
    path_length: Positive = 0.5
    """Stop a sample after this path, the sum of its step sizes; about 0.4 reaches the data."""
    gradient_ratio: Fraction = 0.0
    """Stop a sample earlier, when its gradient norm falls below this fraction of the first one; 0
    turns this off."""
    guidance: NonNegative = 1.0
    """Classifier-free guidance scale; 1 is none."""
    guidance_interval: tuple[NonNegative, NonNegative] | None = None
    """Guide a sample only while its path is between these two lengths; by default always."""
    guidance_norm: Share = 0.0
    """From 0 to 1: at 1 the guided gradient is scaled to the norm of the one with the label, at 0 it is
    left."""
    multistep_coefficients: tuple[tuple[Finite, Finite, Finite, Finite], ...] = ()
    """Rows of a `LinearMultistep`, one a step, fitted by `eqm tune`. If there are any, samples from
    noise take these steps; other descents always use the rule."""
    stop: str = ""
    """One more stop, any registered stop; by default none."""
    rule_options: Options = ()
    """Further settings of the rule, as pairs: NAME VALUE."""
    stop_options: Options = ()
    """Further settings of the stop, as pairs: NAME VALUE."""

    def __post_init__(self) -> None:
        check_fields(self)
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
        if self.guidance_interval and not self.guidance_interval[0] < self.guidance_interval[1]:
            raise ValueError(
                "guidance_interval must be two path lengths in order, such as 0.1 0.3; "
                f"got {self.guidance_interval}"
            )

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
        sampling: Sampling = convert(
            metadata.get("sampling", {}), cls, "the model's ", name="sampling"
        )
        return sampling
