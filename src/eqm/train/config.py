"""The settings of a training run, all with defaults; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from eqm.corruption import ConstantDecay, Decay, LinearDecay, PiecewiseDecay, TruncatedDecay
from eqm.data.config import DataConfig
from eqm.models.config import MLPConfig, TransformerConfig, UNetConfig
from eqm.tasks.sampling import Sampling

if TYPE_CHECKING:
    from eqm.data import Images
    from eqm.objective import EquilibriumMatching


def _check(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{expected}; got {got}")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the field is trained to be."""

    decay: Literal["truncated", "linear", "piecewise", "constant"] = "truncated"
    """The gradient magnitude c(gamma); constant with scale 1 is flow matching, the baseline."""
    start: float = 0.8
    """Where a truncated or piecewise decay sets in (the paper's a)."""
    initial: float = 1.4
    """Value of a piecewise decay at gamma 0 (the paper's b)."""
    scale: float = 4.0
    """Multiplier of the decay (the paper's lambda)."""
    energy: Literal["implicit", "dot", "norm"] = "implicit"
    """Train the field itself, or a scalar energy whose gradient it is."""

    gradient: Literal["exact", "difference"] = "exact"
    """How weight gradients of an explicit energy are found: exactly, or to about 2e-3 by a
    difference of two float32 passes, which needs no second derivative."""

    def __post_init__(self) -> None:
        self.make_decay()
        _check(
            self.gradient == "exact" or self.energy != "implicit",
            "objective.gradient difference is for an explicit energy, objective.energy dot",
            self.energy,
        )

    def make_decay(self) -> Decay:
        """The decay these settings describe."""
        match self.decay:
            case "truncated":
                return TruncatedDecay(self.start, self.scale)
            case "linear":
                return LinearDecay(self.scale)
            case "piecewise":
                return PiecewiseDecay(self.start, self.initial, self.scale)
            case "constant":
                return ConstantDecay(self.scale)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and the average of its weights."""

    learning_rate: float = 1e-4
    """Constant after the warm-up."""
    warmup: int = 0
    """Images over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float = 0.0
    """Largest norm of the gradient of all weights; 0 does not clip."""
    ema_halflife: int = 1_000_000
    """Images after which a weight counts half in the moving average; shorter at first, a tenth of
    the images seen."""

    def __post_init__(self) -> None:
        _check(
            self.learning_rate > 0, "optimizer.learning_rate must be positive", self.learning_rate
        )
        _check(self.ema_halflife > 0, "optimizer.ema_halflife must be positive", self.ema_halflife)
        for name in ("warmup", "weight_decay", "clip"):
            _check(
                getattr(self, name) >= 0,
                f"optimizer.{name} must not be negative",
                getattr(self, name),
            )


@dataclass(frozen=True)
class TrainConfig:
    """A training run, whole.

    Progress is counted in images, so that it does not depend on the batch size."""

    name: str = "run"
    """What to call the run; it is kept in runs/NAME unless told otherwise."""
    model: TransformerConfig | UNetConfig | MLPConfig = field(default_factory=UNetConfig)
    """The network."""
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    sampling: Sampling = Sampling()
    """How to sample the trained model; stored with its weights."""
    images: int = 1_000_000
    """Training images to see, repeats counted; the last batch is a whole one."""
    batch_size: int = 256
    """Images a step."""
    label_dropout: float = 0.1
    """Share of the labels replaced by the null label, so that the field also learns to do
    without."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward pass; auto is bfloat16 on CUDA, else float32."""
    compile: bool = False
    """Compile the network first (torch.compile); pays off in long runs."""
    device: str = "auto"
    """cpu, cuda, mps, ...; auto takes the fastest there is."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch. Small networks are fastest on one."""
    checkpoint_every: int = 100_000
    """Images between checkpoints."""
    seed: int = 0
    """Of the initial weights, the order of the data, and the noise."""

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "checkpoint_every"):
            _check(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        _check(0 <= self.label_dropout < 1, "label_dropout must lie in [0, 1)", self.label_dropout)
        _check(
            self.seed >= 0 and self.threads >= 0,
            "seed and threads must not be negative",
            (self.seed, self.threads),
        )
        _check(
            self.objective.energy == "implicit" or not self.model.noise_conditioning,
            "model.noise_conditioning must be off for an explicit energy",
            self.model.noise_conditioning,
        )
        _check(
            self.objective.energy != "norm",
            "objective.energy norm learns nothing from fresh weights, whose output is zero: take dot, "
            "or wrap a trained network in eqm.NormEnergy and train that",
            "norm",
        )
        _check(
            self.objective.make_decay() == ConstantDecay() or not self.model.noise_conditioning,
            "model.noise_conditioning is for flow matching, objective.decay constant of scale 1",
            f"{self.objective.decay} of scale {self.objective.scale:g}",
        )

    def make_objective(self) -> EquilibriumMatching:
        """The objective these settings describe."""
        from eqm.objective import EquilibriumMatching

        return EquilibriumMatching(
            self.objective.make_decay(),
            self.model.noise_conditioning,
            self.objective.gradient == "difference",
        )

    def suited_to(self, images: Images) -> TrainConfig:
        """The same run with a network for the shape and classes of `images`.

        A network without classes stays without."""
        classes = images.num_classes if self.model.num_classes else 0
        return replace(self, model=replace(self.model, shape=images.shape, num_classes=classes))

    def flat(self) -> dict[str, Any]:
        """All settings by their names on the command line, `model.width` and so on."""
        return _flat(asdict(self))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
