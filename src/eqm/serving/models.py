"""Several models by name, each with its engine: loaded when first asked for, within a memory limit."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from eqm.checks import check_count, kind_of
from eqm.corruption import decay_of
from eqm.devices import pick_device
from eqm.encoders import Encoder, FeatureMaps, encoder_of
from eqm.memory import free_memory
from eqm.models import for_inference, from_pretrained
from eqm.models.network import build_empty
from eqm.models.pretrained import folder_of, read_config
from eqm.pictures import check_channels
from eqm.registry import did_you_mean, settings_of
from eqm.sampling.labels import class_names
from eqm.sampling.model import Model, describe
from eqm.sampling.settings import Sampling
from eqm.serving.engine import Engine, Load
from eqm.serving.request import ClosedError, FullError
from eqm.tasks import EqmDetector

USES = ("sample", "vary", "denoise", "restore", "interpolate", "compose", "detect")
_CLOSED = Load(0, 0, 0, 0, 0, 0)


class UnknownModelError(ValueError):
    """There is no model of this name."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model that is loaded, and what answers requests for it."""

    name: str
    model: Model
    engine: Engine
    encoder: Encoder
    detector: EqmDetector | None
    """Its stored detector, if it has one."""
    detecting: Engine
    """The engine of the detector: the same, unless the model was converted to bfloat16."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return describe(self.model).shape or ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        channels, height, width = self.encoder.image_shape_of(self.shape)
        return channels, height, width

    def engines(self) -> set[Engine]:
        """Its engines."""
        return {self.engine, self.detecting}


@dataclass(eq=False)
class _Entry:
    """A name, what it stands for, and what is loaded of it."""

    source: str | Model
    """A folder, a name of a shipped model or of the Hub; or the model itself."""
    about: dict[str, Any]
    bytes: int
    """Of its weights."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    served: Served | None = None
    held: bool = False
    """Whether memory is taken for it: it is loaded, or it is being loaded."""
    used: float = 0.0
    past: Load = _CLOSED
    """The work of engines that were closed."""


class Models:
    """Models by name. `get` loads one; the least recently used idle one leaves where memory is short.

    `models` are folders, models that come with the package or names on the Hub, each optionally as
    NAME=FOLDER; or models by name. `memory` is the limit of the bytes of all loaded weights, by default
    half of the free memory. Every function may be called from any thread.

    Raises ValueError for no model, a model that does not exist, one of other samples than pictures, two
    models of one name, and a model that is larger than `memory`.

    >>> with Models(["fashion-mnist"]) as models:
    ...     models.names, models.about("fashion-mnist")["loaded"]
    (['fashion-mnist'], False)
    """

    def __init__(
        self,
        models: Sequence[str] | Mapping[str, Model],
        *,
        memory: int | None = None,
        slots: int | None = None,
        max_waiting: int = 1024,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        vae: str | None = None,
    ) -> None:
        check_count(max_waiting=max_waiting)
        if slots is not None:
            check_count(slots=slots)
        if memory is not None:
            check_count(memory=memory)
        if isinstance(models, str) or not models:
            raise ValueError(f"models must be one or more names; got {models!r}")
        self.memory = free_memory() // 2 if memory is None else memory
        self._slots, self._max_waiting, self._precision = slots, max_waiting, precision
        self._vae, self._device = vae, pick_device(device)
        self._lock = threading.Lock()
        self._closed = False
        self._entries: dict[str, _Entry] = {}
        named = models.items() if isinstance(models, Mapping) else map(_named, models)
        for name, source in named:
            if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)?", name):
                raise ValueError(
                    f"a model must have a name of letters, digits and hyphens; got {name!r}: write "
                    "NAME=FOLDER"
                )
            if name in self._entries:
                raise ValueError(f"two models are called {name}: give one as NAME=FOLDER")
            self._entries[name] = entry = self._entry(name, source)
            if entry.bytes > self.memory:
                raise ValueError(
                    f"{name} has {entry.bytes:,} bytes of weights; the memory for models is "
                    f"{self.memory:,}: allow more"
                )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def names(self) -> list[str]:
        """The names of all models."""
        return list(self._entries)

    def about(self, name: str) -> dict[str, Any]:
        """What a model is: shape, classes, uses, settings, and whether it is loaded.

        Raises UnknownModelError, a ValueError."""
        entry = self._find(name)
        return {**entry.about, "loaded": entry.served is not None}

    def get(self, name: str | None = None) -> Served:
        """The model of this name, loaded; None stands for the only one.

        Raises UnknownModelError, a ValueError, for another name; ValueError for None where there are several;
        FullError where no memory is free and all other models are busy; ClosedError after `close`.
        """
        if name is None:
            if len(self._entries) > 1:
                raise ValueError(f"model is missing: give one of {', '.join(self.names)}")
            (name,) = self._entries
        entry = self._find(name)
        with entry.lock:
            if self._closed:
                raise ClosedError("the models are closed")
            if entry.served is None:
                self._make_room(entry)
                try:
                    entry.served = self._load(name, entry)
                finally:
                    entry.held = entry.served is not None
            entry.used = time.monotonic()
            return entry.served

    def loads(self) -> dict[str, Load]:
        """How busy each model is; counts go on where a model was loaded again."""
        found = {}
        for name, entry in self._entries.items():
            served, total = entry.served, entry.past
            for engine in served.engines() if served else ():
                total = _sum(total, engine.load())
            found[name] = total
        return found

    def close(self, *, drain: bool = True) -> None:
        """Takes no more requests, and ends all engines as `Engine.close` does."""
        self._closed = True
        for entry in self._entries.values():
            with entry.lock:
                self._unload(entry, drain=drain)

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, name: str) -> _Entry:
        if name not in self._entries:
            raise UnknownModelError(
                f"there is no model {name[:100]!r}{did_you_mean(name, self._entries)}: this server has "
                f"{', '.join(self.names)}"
            )
        return self._entries[name]

    def _entry(self, name: str, source: str | Model) -> _Entry:
        if isinstance(source, str):
            config, metadata = read_config(source)
            described: Model = build_empty(config)
            described.metadata = metadata  # type: ignore[attr-defined]
            detector = (folder_of(source) / "detector.json").is_file()
        else:
            described, detector = source, False
        info = describe(described)
        encoder = encoder_of(info.metadata, self._vae)
        if isinstance(encoder, FeatureMaps):
            raise ValueError(
                f"a server takes models of pictures; {name} has learnt features of pictures, to detect anomalies: "
                f"use `eqm detect run {source if isinstance(source, str) else 'FOLDER'} PICTURES`"
            )
        shape = encoder.image_shape_of(info.shape or ())
        if len(shape) != 3:
            raise ValueError(
                f"a server takes models of pictures (channels, height, width); {name} has samples of "
                f"shape {shape}: use it in Python, with eqm.tasks"
            )
        check_channels(shape[0])
        weights = described.parameters() if isinstance(described, nn.Module) else ()
        uses = list(USES[:1] if info.noise_conditioning else USES if detector else USES[:-1])
        decay, settings = _decay(described)
        about = {
            "shape": list(shape),
            "num_classes": info.num_classes or 0,
            "classes": class_names(described)
            or [str(number) for number in range(info.num_classes or 0)],
            "uses": uses,
            "detector": detector,
            "sampling": asdict(Sampling.of(info.metadata)),
            "decay": {"name": decay, **settings},
        }
        return _Entry(source, about, sum(w.numel() * 4 for w in weights))

    def _make_room(self, wanted: _Entry) -> None:
        """Takes memory for `wanted`: idle models leave, the least recently used first, until it fits."""
        with self._lock:
            others = [e for e in self._entries.values() if e is not wanted and e.held]
            taken = sum(entry.bytes for entry in others)
            for entry in sorted(others, key=lambda entry: entry.used):
                if taken + wanted.bytes <= self.memory:
                    break
                if not entry.lock.acquire(blocking=False):  # it is loading
                    continue
                try:
                    if entry.served is not None and _idle(entry.served):
                        self._unload(entry, drain=True)
                        taken -= entry.bytes
                finally:
                    entry.lock.release()
            if taken + wanted.bytes > self.memory:
                raise FullError(
                    "the memory for models is full, and all of them are busy: ask again later", 5.0
                )
            wanted.held = True

    def _load(self, name: str, entry: _Entry) -> Served:
        if not isinstance(entry.source, str):
            model, pixels = entry.source, encoder_of(describe(entry.source).metadata, self._vae)
            engine = self._engine(model)
            return Served(name, model, engine, pixels, None, engine)
        network = from_pretrained(entry.source, device=self._device)
        encoder = encoder_of(network.metadata, self._vae, device=self._device)
        model = for_inference(network, precision=self._precision)
        detector = EqmDetector.load(entry.source, network) if entry.about["detector"] else None
        engine = detecting = self._engine(model)
        if (
            detector is not None
            and next(model.parameters()).dtype != next(network.parameters()).dtype
        ):
            detecting = self._engine(network)  # its calibration holds for the stored precision
        return Served(name, model, engine, encoder, detector, detecting)

    def _engine(self, model: Model) -> Engine:
        return Engine(model, slots=self._slots, max_waiting=self._max_waiting)

    def _unload(self, entry: _Entry, *, drain: bool) -> None:
        if (served := entry.served) is None:
            return
        for engine in served.engines():
            engine.close(drain=drain)
            end = engine.load()
            done = replace(_CLOSED, evaluations=end.evaluations, passes=end.passes)
            entry.past = _sum(entry.past, done)
        entry.served, entry.held = None, False


def _named(text: str) -> tuple[str, str]:
    """The name and the source of NAME=FOLDER, a folder, a shipped model or a name on the Hub."""
    if not isinstance(text, str):
        raise ValueError(f"a model must be given as text; got {kind_of(text)}")
    name, equals, source = text.partition("=")
    if equals and not Path(text).is_dir():
        return name, source
    return (Path(text).resolve().name if Path(text).is_dir() else text), text


def _decay(model: Model) -> tuple[str, dict[str, Any]]:
    return settings_of("decay", decay_of(model))


def _idle(served: Served) -> bool:
    loads = [engine.load() for engine in served.engines()]
    return not any(load.waiting or load.running for load in loads)


def _sum(a: Load, b: Load) -> Load:
    return Load(*(x + y for x, y in zip(vars(a).values(), vars(b).values(), strict=True)))
