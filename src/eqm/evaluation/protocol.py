"""A number and the settings it was measured with; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from eqm.schema import Count

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SampleSet:
    """A set of images: what it is, and how many images were used."""

    name: str
    count: Count | None
    """The number of images used; None if a file of statistics does not say."""
    fingerprint: str
    """Hexadecimal digest of the data or weights; "unknown" if a file does not say."""
    labels: str = "none"
    """How images get their classes, in words."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Seeds and sampling settings, if a model drew the images."""

    def __str__(self) -> str:
        count = "an unknown number" if self.count is None else f"{self.count:,}"
        more = "".join(f", {name} {value}" for name, value in self.settings.items())
        return f"{count} of {self.name} ({self.fingerprint}), labels: {self.labels}{more}"


def is_inception(features: str) -> bool:
    """Whether features of this name are those of FID, sFID and KID."""
    return features.startswith("inception:")


@dataclass(frozen=True)
class FeatureSpec:
    """How images become vectors; only statistics with equal specs can be compared."""

    features: str
    fingerprint: str
    size: int
    """The length of a feature vector."""
    resize: str
    """How the features resize an image."""
    rounding: str
    """How image values are rounded first: "8 bits" or "none"."""

    def __str__(self) -> str:
        return (
            f"{self.features} ({self.fingerprint}), {self.size:,} numbers per image, "
            f"resize: {self.resize}, rounding: {self.rounding}"
        )


@dataclass(frozen=True)
class Protocol:
    """How samples were compared with a reference.

    Two numbers are comparable only if their protocols agree in everything but the samples, and in the
    number of samples.
    """

    samples: SampleSet
    reference: SampleSet
    features: FeatureSpec
    training: SampleSet | None
    """The training images, if memorisation was measured."""
    max_rows: int
    """The most feature vectors kept of a set."""
    seed: int
    """The seed of subsets and resampling."""
    version: str
    """The version of eqm."""

    def lines(self) -> dict[str, str]:
        """The settings in words, by name."""
        sets = {"samples": self.samples, "reference": self.reference, "training": self.training}
        return {
            **{name: str(images) for name, images in sets.items() if images is not None},
            "features": str(self.features),
            "computed": f"from at most {self.max_rows:,} feature vectors, seed {self.seed}, "
            f"eqm {self.version}",
        }

    def __str__(self) -> str:
        return "; ".join(f"{name}: {line}" for name, line in self.lines().items())


@dataclass(frozen=True)
class Measurement:
    """A number with its protocol; it prints both, as numbers compare only under the same settings."""

    name: str
    value: float
    protocol: Protocol
    better: Literal["lower", "higher", ""] = ""
    """Which values are better; "" for neither."""
    label: str = ""
    """The name in tables, such as FID; by default `name`."""
    spread: float | None = None
    """The standard deviation over subsets or splits, if the metric has them."""
    interval: tuple[float, float] | None = None
    """The 95 % confidence interval over other samples of the same kind."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the metric."""
    influence: Tensor | None = field(default=None, repr=False, compare=False)
    """The contribution of each sample or reference image, (N,); not saved in files."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)

    def __float__(self) -> float:
        return self.value

    @property
    def text(self) -> str:
        """The value with its spread and interval."""
        text = f"{self.value:.4g}"
        if self.spread is not None:
            text += f" ± {self.spread:.2g}"
        return text if self.interval is None else text + " [{:.3g}, {:.3g}]".format(*self.interval)

    @property
    def details(self) -> str:
        """The settings of the metric, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())

    def as_dict(self) -> dict[str, Any]:
        """Everything but the influence, for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "influence"}

    def __str__(self) -> str:
        spec = self.protocol.features
        features = "" if is_inception(spec.features) else f" in {spec.features} features"
        more = f"{self.details}; " if self.settings else ""
        return f"{self.label}{features}: {self.text} ({more}{self.protocol})"
