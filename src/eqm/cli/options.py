"""The options that several commands share. Each help text is written once, here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from inspect import signature
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from eqm.data.config import DataConfig
from eqm.schema import Meta, check_fields, convert, ranges

MANY = 2**24
"""No option that counts takes more."""

Model = Annotated[
    Positional[str],
    arg(
        metavar="MODEL",
        help="A trained model: its folder, its name on the Hugging Face Hub, or a model that comes with "
        "eqm (fashion-mnist, mnist-5k, openmoji-32).",
    ),
]
Pictures = Annotated[
    Positional[tuple[str, ...]],
    arg(
        metavar="PICTURES ...",
        help="Picture files, folders, archives, an .npz, or a data set by name. "
        "`fashion-mnist-test:0-9` takes the first ten pictures of that data set.",
        help_behavior_hint="(one or more)",
    ),
]
Labels = Annotated[
    tuple[str, ...],
    arg(
        metavar="LABEL ...",
        help="The class of each picture, or one class for all, by number or name.",
        help_behavior_hint="(default: no class)",
    ),
]
Prompt = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        metavar="TEXT",
        help="A sentence that says what to draw, for a model that was trained with captions. Once for all, or "
        "once for each picture.",
        help_behavior_hint="(default: no sentence)",
    ),
]
Guidance = Annotated[
    float | None,
    arg(
        help="Scale of classifier-free guidance, for pictures with labels; 1 is none.",
        help_behavior_hint="(default: the value stored with the model)",
    ),
]
Count = Annotated[int, arg(help="Samples of each picture."), Meta(ge=1, le=MANY)]
Number = Annotated[int, Meta(ge=1, le=MANY)]
AnySeed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Threads = Annotated[int, Meta(ge=0, le=1024)]
Output = arg(
    help="Where to write: NAME.png for one sheet, NAME without ending for a folder of .png files, "
    "NAME.npz for the array `arr_0` (N, H, W, C), uint8."
)
Seed = Annotated[
    int, arg(help="Seed of the noise. Image k uses SEED + k."), Meta(ge=-(2**63), le=2**63 - 1)
]
Resize = Annotated[bool, arg(help="Crop and resize pictures to the size that the model takes.")]
Broken = Annotated[
    Literal["skip", "fail"],
    arg(
        help="What to do with a picture that cannot be read. skip leaves it out, names it, and ends with exit "
        "status 1; fail ends at once."
    ),
]
Vae = Annotated[
    str | None,
    arg(
        help="Autoencoder of a latent model: a folder, a name on the Hugging Face Hub, or KIND:FOLDER such as "
        "taef2:FOLDER.",
        help_behavior_hint="(default: the one stored with the model)",
    ),
]
BatchSize = Annotated[int, arg(help="Images computed at once."), Meta(ge=1, le=MANY)]
Device = Annotated[str, arg(help="cpu, cuda, mps, ...; auto takes the fastest.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    arg(
        help="Precision of the network. auto is bfloat16 on CUDA and the precision of the weights elsewhere."
    ),
]


@dataclass(frozen=True)
class SamplingChanges:
    """Options you leave out take the values stored with the model."""

    changes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, **values: Any) -> SamplingChanges:
        return cls(tuple((name, value) for name, value in values.items() if value is not None))

    def applied(self, model: Any) -> Any:
        """The `Sampling` of a model with these changes, whose rule and stop exist."""
        from eqm.sampling import Sampling

        sampling = Sampling.of(model.metadata).but(**dict(self.changes))
        sampling.make_rule()
        sampling.make_stop()
        return sampling


@dataclass(frozen=True)
class Reading:
    """How data are read, where that is not certain. Each option is the setting of `DataConfig` with its name."""

    NAMES: ClassVar[tuple[str, ...]] = (
        *("split", "layout", "range", "time", "columns", "series", "outside", "workers"),
    )

    changes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, **values: Any) -> Reading:
        usual = vars(DataConfig())
        flags = {name for name in values if isinstance(usual[name], bool)}
        return cls(
            tuple(
                (name, value)
                for name, value in values.items()
                if value is not None and not (name in flags and value == usual[name])
            )
        )

    def applied(self, config: DataConfig) -> DataConfig:
        """The config with these changes. Raises ValueError for values that it does not take."""
        return replace(config, **dict(self.changes))


@dataclass(frozen=True)
class ClassReading(Reading):
    """How data are read of which the classes are used."""

    NAMES = (*Reading.NAMES, "labels", "labels_from")


def typed_names(command: Callable[..., Any]) -> dict[str, str]:
    """The settings of data, such as `data.layout`, and the options of the command that are typed for them."""
    own = signature(command).parameters
    known = {field.name for field in fields(DataConfig)}
    if "config" in own:
        typed = {name: f"--data.{name}" for name in known}
        typed["labels off"] = "--data.no-labels"
    else:
        reading = getattr(own.get("reading"), "default", None)
        names = reading.NAMES if isinstance(reading, Reading) else ()
        typed = {name: f"--{name}" for name in (known - {"labels"}) & own.keys() | {*names}}
        if "labels" in names:
            typed["labels off"] = "--no-labels"
        typed["path"] = "the path"
    return {f"data.{name}": option.replace("_", "-") for name, option in typed.items()}


@dataclass(frozen=True)
class Sheet:
    """How a .png sheet looks."""

    scale: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Side of one image pixel on the sheet. 0 makes images at least 56 pixels wide."""
    captions: bool = False
    """Write what each row and column shows, such as class names."""

    def __post_init__(self) -> None:
        check_fields(self)


SamplingOptions = Annotated[SamplingChanges, OmitArgPrefixes, arg(name="sampling")]
ReadingOptions = Annotated[Reading, OmitArgPrefixes, arg(name="reading")]
ClassReadingOptions = Annotated[ClassReading, OmitArgPrefixes, arg(name="reading")]
AS_FOUND = Reading()
AS_FOUND_WITH_CLASSES = ClassReading()
SheetOptions = Annotated[Sheet, OmitArgPrefixes, arg(name="sheet")]
STORED = SamplingChanges()


def check_numbers(command: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises ValueError for a number outside the range in the annotation of its option."""
    hints = get_type_hints(command, include_extras=True)
    for name, value in given.items():
        if isinstance(value, int | float) and ranges(hints[name]):
            convert(value, hints[name], name=name)
