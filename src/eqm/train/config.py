"""The settings of a training run, all with defaults; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from eqm import registry
from eqm.corruption import Decay
from eqm.data.config import DataConfig
from eqm.models.config import MLPConfig, TransformerConfig, UNetConfig
from eqm.sampling.settings import Sampling
from eqm.train.settings import OptimizerConfig

if TYPE_CHECKING:
    from eqm.data import Source
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
        decay: Decay = registry.make("decay", self.decay, vars(self))
        return decay


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
    init_from: str = ""
    """Folder or name of a trained model to start from; its image size and classes may differ."""
    sampling: Sampling = Sampling()
    """How to sample the trained model; stored with its weights."""
    images: int = 1_000_000
    """Training images to see, repeats counted; the last batch is a whole one. -1 picks a number that
    suits the data (the recipe `folder`)."""
    batch_size: int = 256
    """Images a step, over all processes."""
    micro_batch: int = 0
    """Images that a process computes at once; 0 takes its whole share of the batch. Halved when
    memory runs out."""
    label_dropout: float = 0.1
    """Share of the labels replaced by the null label, so that the field also learns to do
    without."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward pass; auto is bfloat16 on CUDA, else float32."""
    compile: bool = False
    """Compile the network first (torch.compile); pays off in long runs."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third
    more work."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work: each holds all weights (DDP), or a part (FSDP2)."""
    device: str = "auto"
    """cpu, cuda, mps, ...; auto takes the fastest there is."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch. Small networks are fastest on one."""
    checkpoint_every: int = 100_000
    """Images between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""
    max_bad_steps: int = 20
    """Steps in a row without a finite loss and gradient before the run goes back to its last
    checkpoint."""
    eval_every: int = 100_000
    """Images between looks at samples and the held-out loss; 0 never looks."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where the numbers go besides log.jsonl."""
    seed: int = 0
    """Of the initial weights, the order of the data, and the noise."""

    def __post_init__(self) -> None:
        _check(self.images >= 1 or self.images == -1, "images must be at least 1", self.images)
        for name in ("batch_size", "checkpoint_every", "keep_checkpoints", "max_bad_steps"):
            _check(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        _check(0 <= self.label_dropout < 1, "label_dropout must lie in [0, 1)", self.label_dropout)
        for name in ("seed", "threads", "micro_batch", "eval_every"):
            _check(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        _check(self.seed < 2**63, "seed must be below 2^63", self.seed)
        _check(
            self.objective.energy == "implicit" or not self.model.noise_conditioning,
            "model.noise_conditioning must be off for an explicit energy",
            self.model.noise_conditioning,
        )
        _check(
            self.objective.energy != "norm" or bool(self.init_from),
            "objective.energy norm learns nothing from fresh weights, whose output is zero: take dot, "
            "or set init_from to a trained model",
            "norm",
        )
        _check(
            self.objective.gradient == "exact" or self.parallel == "ddp",
            "objective.gradient difference needs all weights on every process: parallel must be ddp",
            self.parallel,
        )

    def make_objective(self) -> EquilibriumMatching:
        """The objective these settings describe."""
        from eqm.objective import EquilibriumMatching

        return EquilibriumMatching(
            self.objective.make_decay(),
            self.model.noise_conditioning,
            self.objective.gradient == "difference",
        )

    def suited_to(self, images: Source) -> TrainConfig:
        """The same run with a network for the shape and classes of `images`.

        A network without classes stays without."""
        classes = images.num_classes if self.model.num_classes else 0
        # The network's settings check the rank.
        model = replace(self.model, shape=images.shape, num_classes=classes)  # type: ignore[arg-type]
        return replace(self, model=model)

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
