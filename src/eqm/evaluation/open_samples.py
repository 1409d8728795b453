"""Samples, references and features by name, with defaults that suit them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from eqm.data import Source, open_source, split
from eqm.data.builtin import NAMED
from eqm.data.config import DataConfig
from eqm.encoders import encoder_of
from eqm.evaluation.samples import Samples, drawn, from_npz, from_source, read_npz
from eqm.evaluation.statistics import Statistics, open_statistics
from eqm.features import Classifier
from eqm.models import from_pretrained
from eqm.models.pretrained import bundled
from eqm.sampling import Sampling

DRAWN = 1_000
"""Samples drawn from a model, unless told otherwise."""


def open_samples(
    name: str,
    *,
    count: int | None = None,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    vae: str | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str | torch.device = "cpu",
    config: DataConfig = DataConfig(),
) -> Samples | Statistics:
    """The samples that `name` stands for: a model's folder or name, to draw `count` of, with some
    settings of sampling changed; or what `open_images` opens, by default all of it.

    Where a model and a data set have one name, it is the model. Raises ValueError where it is neither,
    and for settings of sampling where nothing is sampled.
    """
    changes = {key: value for key, value in (sampling or {}).items() if value is not None}
    if not _is_model(name):
        if changes or vae is not None:
            told = ", ".join([*changes, *([] if vae is None else ["vae"])])
            raise ValueError(
                f"{name} is no model, so nothing is sampled with {told}: leave that out"
            )
        images = open_images(name, config)
        if isinstance(images, Statistics):
            return images
        return from_source(images, count=count)
    model = from_pretrained(name, device=device)
    if len(model.config.shape) != 3:
        raise ValueError(
            f"{name} is a model of shape {model.config.shape}, not of images: measure its samples in "
            "Python, by eqm.metrics"
        )
    return drawn(
        model,
        encoder_of(model.metadata, vae, device=device),
        name=name,
        count=DRAWN if count is None else count,
        seed=seed,
        sampling=Sampling.of(model.metadata).but(**changes),
        precision=precision,
    )


def open_images(path: str, config: DataConfig = DataConfig()) -> Source | Statistics:
    """The images or statistics at `path`, a data set by name, a folder, an .npz or .safetensors; size
    and channels as in `config`.

    Raises ValueError where there is nothing that can be read.
    """
    if not (Path(path).exists() or path in NAMED or set(path) & set(":*[")):
        raise ValueError(
            f"there is no {path}: give a folder of pictures, an .npz, a data set ({', '.join(NAMED)}) or, for "
            f"samples, a model ({', '.join(bundled())})"
        )
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        return open_statistics(path)
    if suffix != ".npz":
        return open_source(replace(config, path=path))
    names = read_npz(Path(path)).keys()
    return open_statistics(path) if {"mu", "sigma"} <= names else from_npz(Path(path))


def open_reference(
    path: str | None,
    samples: Samples | Statistics,
    *,
    training: str | None = None,
    config: DataConfig = DataConfig(),
) -> tuple[Source | Statistics, Source | None]:
    """What to compare samples with, and the images that were trained on, if they are known.

    The latter are those at `training`, or those that the model of the samples remembers; none for
    "none". The reference is at `path`; by default the data set that the model was trained on, with
    what was held out of it. Raises ValueError where there is no default, and as `open_images`.
    """
    known, learnt = _remembered(getattr(samples, "metadata", {}), samples.shape)
    reference = known if path is None else open_images(path, config)
    if reference is None:
        raise ValueError(
            "what the samples are to be compared with is not known: give --reference, a data set, a "
            "folder, an .npz or statistics"
        )
    if training is not None:
        named = None if training == "none" else open_images(training, config)
        if isinstance(named, Statistics):
            raise ValueError(f"copies are looked for in images; {training} holds statistics")
        learnt = named
    return reference, learnt


def _remembered(
    metadata: Mapping[str, Any], shape: tuple[int, ...] | None
) -> tuple[Source | None, Source | None]:
    """The data set of a model, and the part of it that was trained on, where its metadata say and it
    is still there."""
    training = metadata.get("training") or {}
    stored = {part.name: training.get(f"data.{part.name}") for part in fields(DataConfig)}
    known = {name: value for name, value in stored.items() if value is not None}
    if "path" not in known:
        return None, None
    try:
        config = DataConfig(**known | {"classes": tuple(known.get("classes", ())), "flip": False})
        source = open_source(config)
        learnt = split(source, config.val_fraction)[0] if known.get("val_fraction") else source
    except ValueError:  # it has moved, or changed
        return None, None
    same = (metadata.get("data") or {}).get("images") in (None, len(learnt))
    return (source, learnt) if same and source.shape == shape else (None, None)


def suitable_features(*sets: Samples | Source | Statistics) -> tuple[str, str]:
    """The name of features for images like these, and why: those of statistics; else the classifier
    of the data set that comes with the package; `pixels` for small grey images, else `lite0`.

    Raises ValueError for statistics that do not tell their features.
    """
    names = []
    shape: tuple[int, ...] = ()
    for one in sets:
        if isinstance(one, Statistics):
            if one.spec is None:
                raise ValueError(
                    f"{one.sample_set.name} does not say which features it is of: give --features, such as "
                    "inception:PATH for statistics of ADM or pytorch-fid"
                )
            return one.spec.features, f"those of the statistics {one.sample_set.name}"
        if isinstance(one, Samples):
            names += [(one.metadata.get("data") or {}).get("name", ""), one.sample_set.name]
        else:
            names.append(one.name)
        shape = tuple(one.shape)
    for name in (name.removesuffix("-test") for name in names):
        with suppress(ValueError):
            if Classifier.load(name).shape == shape:
                return f"classifier:{name}", f"a classifier of {name}, which comes with eqm"
    if shape[0] == 1 and math.prod(shape) <= 1024:
        return "pixels", "small grey images that no classifier here knows; others tell more"
    return "lite0", "what comes with a package, for pictures"


def _is_model(name: str) -> bool:
    path = Path(name)
    if not path.exists():
        return name in bundled() or (name.count("/") == 1 and ":" not in name and not path.suffix)
    try:
        text = (path / "config.json").read_text(encoding="utf-8")
        return json.loads(text).get("format") == "eqm"
    except (OSError, ValueError, AttributeError):
        return False
