"""The settings of a training run, all with defaults; imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from eqm import registry
from eqm.checks import kind_of
from eqm.corruption import Decay
from eqm.couplings import Coupling, coupling_of
from eqm.data.config import DataConfig
from eqm.files import is_file_name
from eqm.gammas import Distribution, Weighted, distribution_of
from eqm.models.config import NetworkConfig, UNetConfig
from eqm.sampling.settings import Sampling
from eqm.schema import (
    Count,
    CountOrZero,
    Finite,
    Fraction,
    NonNegative,
    Positive,
    Ratio,
    Seed,
    check_fields,
)

if TYPE_CHECKING:
    from eqm.data import Source
    from eqm.objective import EquilibriumMatching

MIN_SIGMA_REL, MAX_SIGMA_REL = 1e-4, 12**-0.5
"""Relative widths of power-function averages: narrower ones are the last weights, and wider ones have an
exponent below 0."""


def ema_halflife(decay: float, batch_size: int) -> float:
    """The half-life in images of an average with the factor `decay` per batch.

    >>> round(ema_halflife(0.5, 256), 6)
    256.0
    """
    return batch_size * math.log(2) / -math.log(decay)


CHECKPOINTS = "checkpoints"
"""The folder of the checkpoints in the folder of a run."""
PAPER_EMA_HALFLIFE = ema_halflife(0.9999, 256)
"""The half-life of the paper (arXiv 2510.02300), 1.77 million images; use it with `ema_ramp` 0."""


def _check(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{expected}; got {got}")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the field learns."""

    decay: str = "truncated"
    """Gradient magnitude c(gamma): truncated, linear, piecewise, constant, or one of your own, by its
    registered name or as package.module:function, which is imported. Constant with scale 1 is flow
    matching."""
    start: Finite = 0.8
    """Gamma at which a truncated or piecewise decay begins to fall (the paper's a)."""
    initial: Finite = 1.4
    """Value of a piecewise decay at gamma 0 (the paper's b)."""
    scale: Finite = 4.0
    """Multiplier of the decay (the paper's lambda)."""
    decay_options: tuple[tuple[str, Finite], ...] = ()
    """Further settings of a decay of your own: pairs of name and number."""
    gamma: str = "uniform"
    """Distribution of gamma: uniform, power, logit-normal, inverse-decay (density 1 / c), or a density of
    your own, by its registered name or as package.module:function, which is imported."""
    gamma_options: tuple[tuple[str, Finite], ...] = ()
    """Settings of the distribution, pairs of name and number: exponent of power; mean and deviation of
    logit-normal; floor of inverse-decay, the least 1 - gamma."""
    gamma_weights: bool = False
    """Draw gamma uniformly and weight each loss by the density, in place of drawing from it."""
    coupling: str = "independent"
    """Which noise of a batch goes with which sample: independent; optimal or sinkhorn, optimal transport within
    the batch of each process; or one of your own, by its registered name or as package.module:function."""
    coupling_options: tuple[tuple[str, Finite], ...] = ()
    """Settings of the coupling, pairs of name and number: regularisation and iterations of sinkhorn."""
    coupling_within_class: bool = False
    """Couple each class by itself."""
    guidance: Positive = 1.0
    """Fold classifier-free guidance of this scale into the field, so that a guided sample takes one pass an
    evaluation; 1 is none. The target carries the guided difference of the averaged weights."""
    energy: Literal["implicit", "dot", "norm"] = "implicit"
    """Train the field itself (implicit), or a scalar energy whose gradient is the field."""
    gradient: Literal["exact", "difference"] = "exact"
    """Weight gradient of an explicit energy: exact, or a finite difference of two float32 passes.
    The difference is wrong by about 0.2 % and needs no second derivative."""

    def __post_init__(self) -> None:
        check_fields(self, prefix="objective.")
        for part in ("decay", "gamma", "coupling"):
            names = [name for name, _ in getattr(self, f"{part}_options")]
            _check(
                len(set(names)) == len(names),
                f"objective.{part}_options must name each setting once",
                ", ".join(names),
            )
            registry.import_part(part, getattr(self, part))
        decay = self.make_decay()
        if ":" in self.decay:
            _check_function(self.decay, decay)
        _check(
            self.gradient == "exact" or self.energy != "implicit",
            "objective.gradient difference needs an explicit energy, such as objective.energy dot",
            self.energy,
        )
        self.make_distribution()
        self.make_coupling()

    def make_decay(self) -> Decay:
        """The decay of these settings. Raises ValueError for an unknown name or a wrong setting."""
        decay: Decay = registry.make("decay", self.decay, vars(self), self.decay_options)
        return decay

    def make_distribution(self) -> Distribution:
        """The distribution of gamma, or of the weights of the losses. Raises ValueError as `make_decay`
        does, and for a density that is negative, not finite or does not integrate."""
        found = distribution_of(self.gamma, decay=self.make_decay(), options=self.gamma_options)
        return Weighted(found) if self.gamma_weights else found

    def make_coupling(self) -> Coupling | None:
        """The coupling, None for independent noise. Raises ValueError as `make_decay` does."""
        return coupling_of(self.coupling, self.coupling_options)


def _check_function(name: str, decay: Decay) -> None:
    """Raises ValueError unless a function of the user is a decay on 0..1."""
    import torch

    gamma = torch.linspace(0, 1, 33)
    try:
        found: Any = decay(gamma)
    except Exception as error:  # whatever their code raises
        raise ValueError(
            f"objective.decay {name} must be a function of gamma (B,); it failed, with "
            f"{type(error).__name__} ({str(error).strip().partition(chr(10))[0]})"
        ) from error
    if not isinstance(found, torch.Tensor) or found.shape != gamma.shape:
        raise ValueError(
            f"objective.decay {name} must return a tensor (B,) for gamma (B,); got {kind_of(found)} for 33 "
            "gammas"
        )
    rounding = 1e-6 * float(found.abs().max())
    if not (found.is_floating_point() and found.isfinite().all() and found.min() >= -rounding):
        raise ValueError(
            f"objective.decay {name} must return finite numbers of at least 0 for gamma from 0 to 1; got "
            f"{found.min() + 0:g} to {found.max() + 0:g}"
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are updated and averaged."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW for all weights; or Muon for the matrices and kernels of hidden layers, and AdamW for
    the rest."""
    learning_rate: Annotated[float, Meta(gt=0, le=1000)] = 1e-4
    """Highest learning rate. Muon's updates are scaled to the size of AdamW's."""
    warmup: CountOrZero = 0
    """Images over which the learning rate rises from 0."""
    schedule: Literal["constant", "cosine", "linear", "sqrt", "inverse-sqrt"] = "constant"
    """Shape of the learning rate: constant; falling to 0 at the end of the run (cosine, linear, or
    sqrt, which is 1 - sqrt); or falling as 1 / sqrt(images)."""
    cooldown: Ratio = 1.0
    """Last part of the run in which cosine, linear and sqrt fall, as a fraction of the run."""
    hold: CountOrZero = 1_000_000
    """Images after which inverse-sqrt begins to fall."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """AdamW: decay of the mean gradient and of the mean squared gradient, per step."""
    eps: Annotated[float, Meta(ge=1e-30, le=1)] = 1e-8
    """AdamW: added to the root of the mean squared gradient."""
    momentum: Fraction = 0.95
    """Muon: decay of the mean gradient, per step."""
    weight_decay: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """Decoupled weight decay of matrices and kernels. Biases, gains and embeddings have none."""
    clip: NonNegative = 0.0
    """Gradient clipping: largest norm of the gradient of all weights; 0 means no clipping."""
    ema_halflife: Positive = 1_000_000
    """Half-life of the moving average of the weights (EMA), in images. The average is what is saved
    and sampled."""
    ema_ramp: NonNegative = 0.1
    """Limit of the half-life, as a fraction of the images seen, so that a short run forgets its
    random start; 0 means no limit."""
    ema_sigma_rel: tuple[Finite, ...] = ()
    """Relative widths (sigma_rel) of extra power-function averages, such as 0.05 0.1. `eqm ema`
    makes an average of any width from them. Each takes the memory of the weights."""
    ema_every: CountOrZero = 0
    """Images between snapshots of these averages in the folder `averages`; 0 means 16 per run."""

    def __post_init__(self) -> None:
        def check(name: str, holds: bool, expected: str) -> None:
            if not holds:
                raise ValueError(f"optimizer.{name} must {expected}; got {getattr(self, name)}")

        check_fields(self, prefix="optimizer.")
        check(
            "ema_sigma_rel",
            all(MIN_SIGMA_REL <= width < MAX_SIGMA_REL for width in self.ema_sigma_rel),
            f"lie between {MIN_SIGMA_REL:g} and {MAX_SIGMA_REL:.3f}",
        )
        check(
            "ema_sigma_rel",
            len(set(self.ema_sigma_rel)) == len(self.ema_sigma_rel),
            "be different from one another",
        )


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Lengths are counted in images, so that they do not depend on the batch size."""

    name: str = "run"
    """Name of the run. By default its folder is runs/NAME."""
    model: NetworkConfig = field(default_factory=UNetConfig)
    """The network."""
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    init_from: str = ""
    """Folder or name of a trained model to start from; its image size and classes may differ."""
    sampling: Sampling = Sampling()
    """How to sample the trained model; saved with its weights."""
    images: Annotated[int, Meta(ge=-1, le=2**62)] = 1_000_000
    """Training images in all, counting repeats. -1 chooses a number that suits the data (recipes
    folder and finetune)."""
    batch_size: Annotated[int, Meta(ge=1, le=2**20)] = 256
    """Images per step, over all processes."""
    micro_batch: CountOrZero = 0
    """Gradient accumulation: images that a process computes at once; 0 means its whole share of the
    batch. It is halved when memory runs out."""
    label_dropout: Fraction = 0.1
    """Fraction of the labels replaced by the null label, which guidance needs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Mixed precision: bfloat16 computes the forward and backward pass in bfloat16, with float32
    weights. auto means bfloat16 on CUDA, else float32."""
    compile: Literal["auto", "on", "off"] = "off"
    """Compile the network with torch.compile. auto compiles on CUDA, and on a CPU only for runs of
    more than about an hour, because compiling takes minutes there."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work: each holds all weights (DDP) or a part of them (FSDP2)."""
    device: str = "auto"
    """cpu, cuda, mps, ...; auto means the fastest that is available."""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    """CPU threads; 0 means torch's default. Small networks are fastest with 1."""
    checkpoint_every: Count = 100_000
    """Images between checkpoints."""
    keep_checkpoints: Count = 2
    """Number of newest checkpoints to keep."""
    max_bad_steps: Count = 20
    """Steps in a row with a non-finite loss or gradient, after which the run goes back to its last
    checkpoint."""
    eval_every: CountOrZero = 100_000
    """Images between previews and measurements of the validation loss; 0 means none."""
    stop_after: CountOrZero = 0
    """Early stopping: end the run after so many validations in a row without a lower loss; 0 means
    never. The weights with the lowest validation loss are in the folder `best`."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Experiment trackers that get the numbers, besides log.jsonl."""
    seed: Seed = 0
    """Seed of the initial weights, the order of the data and the noise."""

    def __post_init__(self) -> None:
        check_fields(self)
        _check(
            is_file_name(self.name),
            "name must be the name of a folder, without / and control characters",
            repr(self.name),
        )
        _check(self.images >= 1 or self.images == -1, "images must be at least 1", self.images)
        _check(
            len(set(self.trackers)) == len(self.trackers),
            "trackers must be different from one another",
            ", ".join(self.trackers),
        )
        _check(
            self.objective.energy == "implicit" or not self.model.noise_conditioning,
            "model.noise_conditioning must be off for an explicit energy",
            self.model.noise_conditioning,
        )
        _check(
            self.objective.energy != "norm" or bool(self.init_from),
            "objective.energy norm cannot start from fresh weights, whose output is zero: use dot, "
            "or set init_from to a trained model",
            "norm",
        )
        if self.objective.guidance != 1:
            self._check_folding()
        _check(
            self.objective.gradient == "exact" or self.parallel == "ddp",
            "objective.gradient difference needs parallel ddp",
            self.parallel,
        )

    def _check_folding(self) -> None:
        plain = self.objective.energy == "implicit" and not self.model.noise_conditioning
        _check(
            plain,
            "objective.guidance needs objective.energy implicit and no model.noise_conditioning",
            f"{self.objective.energy} and {self.model.noise_conditioning}",
        )
        _check(
            self.label_dropout > 0,
            "objective.guidance needs a label_dropout above 0, such as 0.1",
            self.label_dropout,
        )
        _check(
            self.sampling.guidance == 1,
            "sampling.guidance must be 1 where objective.guidance folds it into the field",
            self.sampling.guidance,
        )

    def make_objective(self) -> EquilibriumMatching:
        """The objective of these settings. Raises ValueError as `ObjectiveConfig.make_decay` does."""
        from eqm.objective import EquilibriumMatching

        return EquilibriumMatching(
            self.objective.make_decay(),
            self.model.noise_conditioning,
            self.objective.gradient == "difference",
            self.objective.make_distribution(),
        )

    def suited_to(self, images: Source) -> TrainConfig:
        """The same run, with a network for the shape and classes of `images`, or for their sentences.

        A network without classes keeps none. One without a text encoder takes no sentences."""
        model = replace(self.model, shape=tuple(images.shape))
        if model.text.encoder:
            about: Any = getattr(images, "text", None)
            if about is None:
                return replace(self, model=model)
            text = replace(
                model.text,
                encoder=about.name,
                width=about.width,
                fingerprint=about.fingerprint,
            )
            return replace(self, model=replace(model, num_classes=about.size, text=text))
        classes = images.num_classes if self.model.num_classes else 0
        return replace(self, model=replace(model, num_classes=classes))

    def worded(self, images: Source, like: Source | None = None) -> Source:
        """`images` with the tokens of their captions as labels, if the network takes sentences.

        The text encoder is that of `like`, of the model to start from, or a new one for these captions.
        Raises ValueError for images without captions."""
        from eqm.data.captions import Worded, captions_of, worded
        from eqm.models import read_config
        from eqm.text import open_text, text_of

        settings = self.model.text
        if not settings.encoder or isinstance(images, Worded):
            return images
        if isinstance(like, Worded):
            return worded(images, like.text, length=settings.length)
        if self.init_from and read_config(self.init_from)[0].text.encoder:
            text = text_of(read_config(self.init_from)[1])
        else:
            every = [each for some in captions_of(images) for each in some]
            text = open_text(settings.encoder, every)
        return worded(images, text, length=min(settings.length, text.longest or settings.length))

    def flat(self) -> dict[str, Any]:
        """All settings by their names on the command line, such as `model.width`."""
        return _flat(asdict(self))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = _listed(value)
    return flat


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return [_listed(entry) for entry in value] if isinstance(value, tuple) else value
