"""Samples, references and features by name, with defaults that suit them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from eqm.data import DataConfig, Source, open_source, split
from eqm.data.named import NAMED
from eqm.encoders import encoder_of
from eqm.evaluation.evaluate import Reference
from eqm.evaluation.samples import Samples, drawn, from_npz, from_source, read_npz
from eqm.evaluation.statistics import Statistics, open_statistics
from eqm.features import open_features
from eqm.models import for_inference, from_pretrained
from eqm.tasks import Sampling

DRAWN = 2_000
"""Samples drawn from a model, unless told otherwise."""


def open_samples(
    name: str,
    *,
    count: int | None = None,
    seed: int = 0,
    guidance: float | None = None,
    vae: str | None = None,
    device: str | torch.device = "cpu",
) -> Samples | Statistics:
    """The samples that `name` stands for: a model's folder or name, to draw `count` of; an .npz of
    images or of statistics; or whatever `eqm.data.open_source` opens.

    Where a model and a data set have one name, it is the model. Raises ValueError where it is none of
    these, and for settings of sampling where nothing is sampled.
    """
    if _is_model(name):
        model = from_pretrained(name, device=device)
        encoder = encoder_of(model.metadata, vae, device=device)
        sampling = Sampling.of(model.metadata).but(guidance=guidance)
        count = DRAWN if count is None else count
        return drawn(
            for_inference(model), encoder, name=name, count=count, seed=seed, sampling=sampling
        )
    if guidance is not None or vae is not None:
        raise ValueError(f"guidance and vae are for models to sample; {name} is none")
    if (statistics := _statistics(name)) is not None:
        return statistics
    if Path(name).suffix == ".npz":
        return from_npz(name, count=count)
    return from_source(_source(DataConfig(name), name), count=count)


def open_reference(
    path: str | None, samples: Samples | Statistics, *, held_out: str | None = None
) -> Reference:
    """What to compare samples with: a data set, images or statistics at `path`; by default the data
    that their model was trained on, as its metadata remember.

    Held out are the images at `held_out`; by default those that training left out, or for a data set
    NAME the known NAME-test; else none, and the reference is cut in two halves to compare. Raises
    ValueError where there is nothing of that name, and where no default is known.
    """
    unseen = None if held_out is None else _images(held_out)
    if path is not None:
        if (statistics := _statistics(path)) is not None:
            return Reference(statistics, unseen, path)
        if Path(path).suffix == ".npz":
            return Reference(_halves(lambda **cut: from_npz(path, **cut)), unseen, path)
        return _of_source(_source(DataConfig(path), path), unseen, path)
    metadata = getattr(samples, "metadata", {})
    config = _trained_on(metadata)
    if config is None:
        raise ValueError(
            "what the samples are to be compared with is not known: give --data, a data set, a folder "
            "or statistics"
        )
    source: Source = open_source(config)
    if config.held_out:
        source, rest = split(source, config.held_out)
        unseen = unseen or from_source(rest)
    remembered = (metadata.get("data") or {}).get("fingerprint")
    if remembered not in (None, source.fingerprint):
        raise ValueError(
            f"the model was trained on data of the fingerprint {remembered}; {config.path} now has "
            f"{source.fingerprint}: give --data"
        )
    return _of_source(source, unseen, config.path)


def suitable_features(reference: Reference) -> str:
    """The name of features for images like these: a classifier of the data set where one is at hand,
    `lite0` for colour, else `pixels`.

    Statistics need the features that they were made with: those that they name, else Inception, whose
    weights must be given by path. Raises ValueError for statistics that name none.
    """
    if isinstance(reference.images, Statistics):
        if reference.images.seen is None:
            raise ValueError(
                f"{reference.path} does not say which features it is of: give --features, such as "
                "inception:PATH for statistics of ADM or pytorch-fid"
            )
        return reference.images.seen.features
    if reference.images[0].shape[0] == 3:
        return "lite0"
    name = f"classifier:{reference.path.removesuffix('-test')}"
    try:
        open_features(name)
    except ValueError:
        return "pixels"
    return name


def _is_model(name: str) -> bool:
    config = Path(name) / "config.json"
    if config.is_file():
        try:
            return json.loads(config.read_text(encoding="utf-8")).get("format") == "eqm"
        except (ValueError, AttributeError):
            return False
    return not Path(name).exists() and _is_known(name)


def _is_known(name: str) -> bool:
    """Whether a model of this name comes with the package, or may be on the hub."""
    if name in NAMED and not (_BUNDLED / name).is_dir():
        return False
    return (_BUNDLED / name).is_dir() or (name.count("/") == 1 and not name.startswith("hf:"))
