"""Signals, videos and points that a command is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from eqm.data import DataConfig
    from eqm.data.source import Source


@dataclass(frozen=True)
class GivenSamples:
    """The samples at a path."""

    source: Source
    metadata: Mapping[str, Any]
    """Those of the model."""

    def __len__(self) -> int:
        return len(self.source)

    def scaled(self, rows: Tensor) -> Tensor:
        """The samples at `rows` (B,), scaled as the training data of the model were."""
        from eqm.data.values import in_model_units
        from eqm.randomness import SampleRandom

        samples = self.source.batch(rows, SampleRandom(0, rows))
        about = getattr(self.source, "metadata", {})
        return in_model_units(self.source.name, samples, about, self.metadata)


def open_samples(
    config: DataConfig, shape: tuple[int, ...], metadata: Mapping[str, Any]
) -> GivenSamples:
    """The samples at the path of `config` for a model of this `shape` and these `metadata`.

    Raises ValueError for other things than arrays and data sets with names, and for another shape."""
    from eqm.data.open_source import open_source, opens_arrays
    from eqm.data.series import is_table
    from eqm.data.sounds import is_sound, like_sounds_of
    from eqm.data.values import Wanted

    path = Path(config.path)
    packed = path.is_dir() or path.suffix.lower() in (".zip", ".tar") or is_sound(path.name)
    rate = (metadata.get("data") or {}).get("sample_rate")
    config = like_sounds_of(metadata, shape, config)
    if len(shape) == 2 and not rate and is_table(path):
        config = _as_trained(config, shape, metadata)
    elif path.exists() and not opens_arrays(config) and not (rate and packed):
        raise ValueError(
            f"the model takes samples of shape {shape}, and {config.path} is no array: give a .npy or .npz, or "
            "for series a .csv, .tsv or .parquet"
        )
    source = open_source(config, small=True, wanted=Wanted.of(shape, metadata))
    other = getattr(source, "metadata", {}).get("sample_rate", rate)
    if rate and other != rate:
        raise ValueError(
            f"{config.path} holds sounds of {other} Hz; the model takes {rate} Hz: resample them first"
        )
    if tuple(source.shape) != shape:
        raise ValueError(
            f"{config.path} holds samples of shape {tuple(source.shape)}; the model takes {shape}: bring them to "
            "that shape"
        )
    return GivenSamples(source, metadata)


def _as_trained(
    config: DataConfig, shape: tuple[int, ...], metadata: Mapping[str, Any]
) -> DataConfig:
    """The config of a table of time series for a model: one window after the other, without overlap, with the columns
    of the training data where the table has them and `config` names no others."""
    from eqm.data import DataConfig
    from eqm.data.tables import read_table

    there = set(read_table(config.path).names)
    trained = DataConfig.of(metadata) or DataConfig()
    known = (metadata.get("data") or {}).get("columns") or ()
    config = replace(config, length=shape[-1], stride=shape[-1])
    for name, columns in (
        ("time", (trained.time,)),
        ("series", (trained.series,)),
        ("columns", tuple(known)),
    ):
        if not getattr(config, name) and columns and there.issuperset(columns):
            found: dict[str, Any] = {name: columns if name == "columns" else columns[0]}
            config = replace(config, **found)
    return config


def read_mask(path: Path, shape: tuple[int, ...], *, name: str = "mask") -> Tensor:
    """The mask of a .npy for samples of `shape`: that shape, or without channels, or one number for each step of
    the first axis behind them; (*shape[1:]) or `shape`.

    Raises ValueError for other files and shapes, and for values outside of 0..1."""
    import torch

    from eqm.data.array_files import read_npy
    from eqm.data.values import check_finite, plain

    if path.suffix.lower() != ".npy":
        raise ValueError(f"{name} must be a .npy for samples that are no pictures; got {path}")
    mask = torch.from_numpy(plain(path.name, read_npy(path))).float()
    inner = tuple(shape[1:]) or tuple(shape)
    if mask.shape == inner[:1]:  # one number a step of time
        mask = mask.view(-1, *[1] * (len(inner) - 1)).expand(inner)
    if tuple(mask.shape) not in (inner, tuple(shape)):
        raise ValueError(
            f"{name} must have shape {inner}, {tuple(shape)} or {inner[:1]}; got {tuple(mask.shape)}: save it so"
        )
    check_finite(path.name, mask[None])
    if mask.min() < 0 or mask.max() > 1:
        raise ValueError(
            f"{name} must hold numbers in 0..1; got {mask.min():g}..{mask.max():g}: rescale it"
        )
    return mask


def without_holes(holes: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """The mask of samples of `shape` that is 0 in each hole START:END, and else 1: along time for signals (C, L)
    and videos (C, T, H, W), along the values for points (D,).

    Both are counted from 0; END is not in the hole. Raises ValueError for other texts, and empty holes."""
    import torch

    inner = tuple(shape[1:]) or tuple(shape)
    mask = torch.ones(inner)
    for hole in holes:
        found = re.fullmatch(r"(-?\d*):(-?\d*)", hole)
        parts = [int(part) if part.strip("-") else None for part in found.groups()] if found else []
        rows = range(inner[0])[slice(*parts)] if found else range(0)
        if not rows:
            raise ValueError(
                f"hole must be START:END within 0:{inner[0]}, the steps that are missing; got {hole!r}"
            )
        mask[rows.start : rows.stop] = 0
    return mask
