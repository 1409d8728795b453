"""Opens samples and references by name, and picks default features."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from eqm.data import Captioned, Pictures, Source, captions_of, open_source, split
from eqm.data.array_files import read_npz
from eqm.data.arrays import from_npz
from eqm.data.config import DataConfig
from eqm.data.open_source import applicable
from eqm.data.pictures import look, unreadable
from eqm.data.sounds import like_sounds_of
from eqm.data.source import notes_of, say
from eqm.data.tensors import Tensors
from eqm.data.values import Wanted
from eqm.encoders import encoder_of
from eqm.evaluation.samples import Samples, drawn, from_source
from eqm.evaluation.statistics import Statistics, open_statistics
from eqm.features import Classifier
from eqm.features.classifier import bundled_classifiers
from eqm.files import printable
from eqm.models import from_pretrained
from eqm.models.pretrained import bundled
from eqm.registry import names
from eqm.sampling import Sampling, describe
from eqm.schema import read_json

LOG = logging.getLogger(__name__)
LISTED = 20  # unreadable pictures that are named in warnings
DRAWN = 1_000  # samples drawn from a model by default


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
    reference: str | None = None,
) -> Samples | Statistics:
    """The samples called `name`: `count` samples of a model (folder or name), or images as in
    `open_images`, by default all.

    `sampling` changes settings that are stored with the model. If a model and a data set have the same
    name, the model is used. A model of sentences draws the captions of the data at `reference`, by default
    of its own. Raises ValueError if there is neither, and for settings of sampling with a
    data set.
    """
    changes = {key: value for key, value in (sampling or {}).items() if value is not None}
    if not _is_model(name):
        if changes or vae is not None:
            given = ", ".join([*changes, *([] if vae is None else ["vae"])])
            raise ValueError(
                f"{name} is not a model, so nothing is sampled; got {given}: leave that out"
            )
        images = open_images(name, config)
        if isinstance(images, Statistics):
            return images
        return from_source(images, count=count)
    model = from_pretrained(name, device=device)
    return drawn(
        model,
        encoder_of(model.metadata, vae, device=device),
        name=name,
        count=DRAWN if count is None else count,
        seed=seed,
        sampling=Sampling.of(model.metadata).but(**changes),
        precision=precision,
        captions=_captions(model.metadata, name, reference) if describe(model).sentence else (),
    )


def _captions(metadata: dict[str, Any], name: str, reference: str | None) -> list[str]:
    """The first caption of each sample that a model kept for validation, or of all where it kept none.

    Other data of pictures, at the path `reference`, give all of theirs. Raises ValueError where there are
    none, and for data with a path that only the model names."""
    own = DataConfig.of(metadata)
    path = reference or (own.path if own is not None and own.path in names("source") else None)
    if path is None:
        raise ValueError(
            f"{name} takes sentences: give --reference with pictures and their captions, such as its data"
            + (f" {printable(own.path)}" if own else "")
        )
    same = own is not None and Path(own.path) == Path(path)
    config = own if own is not None and same else DataConfig(path)
    if not same or (not config.captions and path not in names("source")):
        config = replace(config, path=path, captions="auto")
    source = open_source(config)
    if same and config.val_fraction:
        source = split(source, config.val_fraction)[1]
    return [some[0] for some in captions_of(source) if some]


def open_images(
    path: str, config: DataConfig = DataConfig(), *, wanted: Wanted | None = None
) -> Source | Statistics:
    """The images or statistics at `path`: a data set by name, a folder, an .npz or a .safetensors file.

    `config` says how data are read, `path` apart; `wanted` are the images that these are compared with. Raises
    ValueError if nothing there can be read.
    """
    if not (Path(path).exists() or path in names("source") or set(path) & set(":*?[{")):
        raise ValueError(
            f"there is no {path}: give a folder of pictures, an .npz, a data set "
            f"({', '.join(names('source'))}) or, for samples, a model ({', '.join(bundled())})"
        )
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        return open_statistics(path)
    if suffix != ".npz":
        data = applicable(replace(config, path=path))
        source = open_source(data, small=True, wanted=wanted)
        return readable(_called(source, path), config)
    if {"mu", "sigma"} <= read_npz(Path(path)).keys():
        return open_statistics(path)
    source = from_npz(Path(path), config, wanted=wanted)
    say(notes_of(source))
    return _called(source, path)


def _called(source: Source, path: str) -> Source:
    """The source under the name of its path: two folders may have the same last part."""
    if not Path(path).exists():
        return source
    if isinstance(source, Pictures):
        return replace(source, files=replace(source.files, name=path))
    return replace(source, name=path) if isinstance(source, Tensors) else source


def open_reference(
    path: str | None,
    samples: Samples | Statistics,
    *,
    training: str | None = None,
    config: DataConfig = DataConfig(),
) -> tuple[Source | Statistics, Source | None]:
    """The reference images, and the training images if they are known.

    The reference is at `path`, by default the whole data set of the model, with its validation set. The
    training images are at `training`, by default those of the model; "none" means none. A file or folder
    that the model names is opened only if `path` or `training` names it too. Raises ValueError if there
    is no default, and as `open_images` does.
    """
    metadata = getattr(samples, "metadata", {})
    known, trained_on = _data_of(metadata, samples.shape, (path, training))
    wanted = None if samples.shape is None else Wanted.of(samples.shape, metadata)
    config = like_sounds_of(metadata, samples.shape, config)
    reference = known if path is None else open_images(path, config, wanted=wanted)
    if reference is None:
        stored = DataConfig.of(metadata)
        if stored and stored.path not in names("source"):
            raise ValueError(
                f"the model names the data {printable(stored.path)}, which is not opened unasked: give "
                "--reference with that path, or other images"
            )
        raise ValueError(
            "the reference of these samples is unknown: give --reference, a data set, a folder, an .npz "
            "or statistics"
        )
    if training is not None:
        named = None if training == "none" else open_images(training, config, wanted=wanted)
        if isinstance(named, Statistics):
            raise ValueError(f"--training takes images; {training} holds statistics")
        trained_on = named
    return reference, trained_on


def _data_of(
    metadata: Mapping[str, Any], shape: tuple[int, ...] | None, allowed: Sequence[str | None]
) -> tuple[Source | None, Source | None]:
    """The data set of a model and its training images, if the metadata name them and they still exist."""
    try:
        config = DataConfig.of(metadata)
        if config is None or config.path not in (*names("source"), *allowed):
            return None, None
        source = open_source(config)
        trained_on = split(source, config.val_fraction)[0] if config.val_fraction else source
    except ValueError:  # it was moved or changed
        return None, None
    same = (metadata.get("data") or {}).get("images") in (None, len(trained_on))
    if not same or source.shape != shape:
        return None, None
    return readable(source, config), readable(trained_on, config)


def readable(source: Source, config: DataConfig) -> Source:
    """The source without the pictures that cannot be decoded, which training replaces by others.

    A warning names them, and so does the `unreadable` of its samples. Raises ValueError where there are
    any and `config.broken` is "fail", and where no picture can be read.
    """
    if isinstance(source, Captioned):  # the captions are of no use here
        source = source.source
    if not isinstance(source, Pictures):
        return source
    numbers = source.rows.tolist()
    good, unread = look(source.files, config, numbers, decoded=True)
    broken = {source.files.names[number]: why for number, why in unread.items()}
    if not broken:
        return source
    if config.broken == "fail" or len(broken) == len(source):
        raise unreadable(source.name, broken, len(source))
    for name, why in list(broken.items())[:LISTED]:
        LOG.warning("%s: cannot read %s (%s): it is left out", source.name, name, why)
    if len(broken) > LISTED:
        LOG.warning("%s: %d more pictures cannot be read", source.name, len(broken) - LISTED)
    rows = torch.tensor([k for k, number in enumerate(numbers) if number in good])
    labels = None if source.labels is None else source.labels[rows]
    kept = source.subset(rows, labels, source.num_classes, source.class_names)
    return replace(kept, broken=broken)


def suitable_features(*sets: Samples | Source | Statistics) -> tuple[str, str]:
    """The name of features that suit these images, and the reason.

    They are those of given statistics, else the package's classifier of the data set, else `pixels` for
    small grey images, else `lite0`. Samples of other kinds have `values`, or `pca:64` if they are large.
    Raises ValueError for statistics of unknown features, and of features that are read from a file or folder, as
    the statistics may come from anybody.
    """
    names = []
    shape: tuple[int, ...] = ()
    for one in sets:
        if isinstance(one, Statistics):
            if one.spec is None:
                raise ValueError(
                    f"{one.sample_set.name} does not say which features it holds: give --features, such as "
                    "inception:PATH for statistics of ADM or pytorch-fid"
                )
            argument = one.spec.features.partition(":")[2]
            if not (not argument or argument.isdecimal() or argument in bundled_classifiers()):
                raise ValueError(
                    f"{one.sample_set.name} holds features {printable(one.spec.features)}, whose weights are not "
                    "opened unasked: give them by --features"
                )
            return one.spec.features, f"the features of {one.sample_set.name}"
        if isinstance(one, Samples):
            names += [(one.metadata.get("data") or {}).get("name", ""), one.sample_set.name]
        else:
            names.append(one.name)
        shape = tuple(one.shape)
    for name in (name.removesuffix("-test") for name in names):
        if name in bundled_classifiers() and Classifier.load(name).shape == shape:
            return f"classifier:{name}", f"the classifier of {name} that comes with eqm"
    if len(shape) != 3:
        many = math.prod(shape) > 1024
        name = "pca:64" if many else "values"
        return name, "for samples that are no pictures; a function of your own says more"
    if shape[0] == 1 and math.prod(shape) <= 1024:
        return "pixels", "for small grey images without a classifier; other features say more"
    return "lite0", "the default for pictures"


def _is_model(name: str) -> bool:
    path = Path(name)
    if not path.exists():
        return name in bundled() or (name.count("/") == 1 and ":" not in name and not path.suffix)
    try:
        config = read_json(path / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == "eqm"
