"""A number and how it came about, never one without the other; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Subject:
    """A set of images: what it is, and which of it took part."""

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
class Protocol:
    """How samples were compared with a reference: two numbers compare where all of it but the
    samples agrees, and their count."""

    features: str
    features_fingerprint: str
    features_size: int
    resize: str
    """What the features do to an image first."""
    rounding: str
    """What was done to values before: "8 bits" or "none"."""
    samples: Subject
    reference: Subject
    kept: int
    """The most rows of features kept, for what needs more than moments."""
    seed: int
    """Of subsets and resampling."""
    version: str
    """Of eqm."""

    def differences(self, other: Protocol) -> list[str]:
        """Why a number by this protocol cannot be compared with one by the other; a phrase each."""
        same = (
            *("features", "features_fingerprint", "resize", "rounding", "kept"),
            *("reference.name", "reference.fingerprint", "reference.count", "samples.count"),
        )
        pairs = [(name, _at(self, name), _at(other, name)) for name in same]
        return [f"{name}: {a} and {b}" for name, a, b in pairs if a != b]

    def __str__(self) -> str:
        return (
            f"samples: {self.samples}; reference: {self.reference}; features: {self.features} "
            f"({self.features_fingerprint}), {self.features_size} numbers an image, resize: "
            f"{self.resize}, rounding: {self.rounding}; at most {self.kept:,} rows of features kept, "
            f"seed {self.seed}, eqm {self.version}"
        )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Protocol:
        """The protocol that `dataclasses.asdict` turned into `values`."""
        subjects = {name: Subject(**values[name]) for name in ("samples", "reference")}
        return cls(**{**values, **subjects})


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
        """The value with its interval or spread: part of a table whose caption is the protocol."""
        text = f"{self.value:.4g}"
        if self.spread is not None:
            text += f" ± {self.spread:.2g}"
        return text if self.interval is None else text + " [{:.4g}, {:.4g}]".format(*self.interval)

    def __str__(self) -> str:
        more = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"{self.name} {self.amount} ({more + '; ' if more else ''}{self.protocol})"

    def plain(self) -> dict[str, Any]:
        """What JSON can hold of it, but its protocol, which a report shares."""
        left_out = ("protocol", "influence")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}


def plain(protocol: Protocol) -> dict[str, Any]:
    """What JSON can hold of a protocol; `Protocol.of` reads it."""
    return asdict(protocol)


def _at(protocol: Protocol, path: str) -> Any:
    value: Any = protocol
    for name in path.split("."):
        value = getattr(value, name)
    return value
