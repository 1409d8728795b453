"""How much one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from eqm.sampling.settings import Sampling
from eqm.schema import Count, Positive, check_fields


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for. Raises ValueError for values out of range."""

    body_bytes: Count = 32 << 20
    """Bytes of a request."""
    pixels: Count = 1 << 24
    """Pixels of a picture that is sent."""
    count: Count = 1000
    """Samples that are drawn, or pictures that are sent."""
    answer_pixels: Count = 1 << 23
    """Pixels of all pictures of an answer."""
    steps: Count = 2000
    """Steps of a sample."""
    seconds: Positive = 600.0
    """Time until the answer; the deadline of a request that gives none."""
    body_seconds: Positive = 30.0
    """Time to send a whole request."""

    def __post_init__(self) -> None:
        check_fields(self)

    def check_count(self, name: str, count: int) -> None:
        """Raises ValueError for more samples or pictures than are allowed."""
        if count > self.count:
            raise ValueError(
                f"{name} must be at most {self.count:,} in one request; got {count:,}: "
                "send several requests"
            )

    def check_answer(self, pictures: int, height: int, width: int) -> None:
        """Raises ValueError for an answer with more pixels than are allowed."""
        if (pixels := pictures * height * width) > self.answer_pixels:
            raise ValueError(
                f"an answer has at most {self.answer_pixels:,} pixels; {pictures:,} pictures of "
                f"{width}x{height} have {pixels:,}: ask for fewer or smaller pictures"
            )

    def check_steps(self, sampling: Sampling) -> None:
        """Raises ValueError for settings that take more steps than are allowed."""
        steps = max(sampling.max_steps, len(sampling.multistep_coefficients))
        if steps > self.steps:
            raise ValueError(
                f"a sample takes at most {self.steps:,} steps on this server; path_length "
                f"{sampling.path_length:g} in steps of {sampling.step_size:g} takes {steps:,}: take a "
                "larger step_size or a shorter path_length"
            )
