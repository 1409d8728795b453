"""A number and how it came about, never one without the other; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SampleSet:
    """A set of images: what it is, and how many of it took part."""

    name: str
    count: int | None
    """How many took part; None where a file of statistics does not tell."""
    fingerprint: str
    """Hexadecimal digest of data or weights, "unknown" where a file does not tell."""
    labels: str = "none"
    """Which class each image has, in words."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Seeds and settings of sampling, where the images were drawn from a model."""

    def __str__(self) -> str:
        count = "an unknown number" if self.count is None else f"{self.count:,}"
        more = "".join(f", {name} {value}" for name, value in self.settings.items())
        return f"{count} of {self.name} ({self.fingerprint}), labels: {self.labels}{more}"


@dataclass(frozen=True)
class FeatureSpec:
    """How an image becomes numbers: statistics through different ones do not compare."""

    features: str
    fingerprint: str
    size: int
    """Numbers an image."""
    resize: str
    """What the features do to an image first."""
    rounding: str
    """What was done to its values before: "8 bits" or "none"."""

    def __str__(self) -> str:
        return (
            f"{self.features} ({self.fingerprint}), {self.size:,} numbers an image, "
            f"resize: {self.resize}, rounding: {self.rounding}"
        )


@dataclass(frozen=True)
class Protocol:
    """How samples were compared with a reference: two numbers compare where all of it agrees but
    the samples, and of these the count."""

    samples: SampleSet
    reference: SampleSet
    features: FeatureSpec
    training: SampleSet | None
    """The images whose copies were looked for."""
    max_rows: int
    """The most rows of features kept, for what needs more than moments."""
    seed: int
    """Of subsets and resampling."""
    version: str
    """Of eqm."""

    def lines(self) -> dict[str, str]:
        """What takes part, each by what it is."""
        told = {"samples": self.samples, "reference": self.reference, "training": self.training}
        return {
            **{name: str(one) for name, one in told.items() if one is not None},
            "features": str(self.features),
            "computed": f"from {self.max_rows:,} rows of features at most, seed {self.seed}, "
            f"eqm {self.version}",
        }

    def __str__(self) -> str:
        return "; ".join(f"{name}: {line}" for name, line in self.lines().items())


@dataclass(frozen=True)
class Measurement:
    """A number with its protocol: what prints it prints both."""

    name: str
    value: float
    protocol: Protocol
    spread: float | None = None
    """Standard deviation over the repetitions that are usual for this metric, if there are any."""
    interval: tuple[float, float] | None = None
    """95 % confidence: how the number changes with other samples like these."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Those of the metric."""
    influence: Tensor | None = field(default=None, repr=False, compare=False)
    """What each sample, or each image of the reference, adds to it; not kept in files."""

    def __float__(self) -> float:
        return self.value

    @property
    def amount(self) -> str:
        """The value with its spread and interval, for a table whose caption is the protocol."""
        text = f"{self.value:.4g}"
        if self.spread is not None:
            text += f" ± {self.spread:.2g}"
        return text if self.interval is None else text + " [{:.3g}, {:.3g}]".format(*self.interval)

    @property
    def details(self) -> str:
        """The settings of the metric, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())

    def plain(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        return {name: value for name, value in asdict(self).items() if name != "influence"}

    def __str__(self) -> str:
        more = f"{self.details}; " if self.settings else ""
        return f"{self.name} {self.amount} ({more}{self.protocol})"
