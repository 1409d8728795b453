"""Folders, zips and tars of sound, and single files, as signals (C, L) or log-mel spectrograms."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from eqm.data.config import DataConfig
from eqm.data.picture_files import SOUNDS, PictureFiles
from eqm.data.source import MissingDataError
from eqm.data.spectra import LogMel
from eqm.data.tensors import Tensors
from eqm.data.values import in_own_units
from eqm.files import printable
from eqm.memory import check_memory
from eqm.naming import said

if TYPE_CHECKING:
    from soundfile import SoundFile

LOG = logging.getLogger(__name__)


def is_sound(name: str) -> bool:
    """Whether a file is a sound that can be read, by the end of its name: .wav, .flac or .ogg."""
    return PurePosixPath(name).suffix.lower() in SOUNDS


def sounds(files: PictureFiles, config: DataConfig) -> Tensors:
    """The sounds of files as signals (N, C, L), float32, in memory.

    `config.length` cuts longer ones at their end, and fills shorter ones with silence; `config.channels` 1 is
    the mean of the channels. All values are divided by their standard deviation over all sounds, which is stored
    with the weights, as is the sample rate.

    With `config.sound` "log-mel" they are log-mel spectrograms (N, C, frames, 1, 64), which have the mean 0 and
    the standard deviation 1 over all sounds. Raises ValueError for several sample rates, lengths or
    numbers of channels, and where a sound cannot be read and `config.broken` is "fail"; MissingDataError
    without soundfile.
    """
    _check_settings(files.name, config)
    found: list[np.ndarray] = []
    rows: list[int] = []
    forms: list[tuple[int, int, int]] = []
    for row, name in enumerate(files.names):
        try:
            with files.open(row) as opened:
                values, form = _read(opened, config)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            if isinstance(error, MissingDataError):
                raise
            why = " ".join(str(error).split())
            if config.broken == "fail":
                raise ValueError(f"cannot read the sound {name} ({why}): replace it") from error
            LOG.warning("cannot read the sound %s (%s): it is left out", printable(name), why)
            continue
        found.append(values)
        rows.append(row)
        forms.append(form)
    if not found:
        raise ValueError(f"none of the {len(files.names)} sounds in {files.name} can be read")
    names = [files.names[row] for row in rows]
    rate = _one(files.name, names, [form[0] for form in forms], "sample rates", _RESAMPLE)
    channels = [1 if config.channels == 1 else form[1] for form in forms]
    _one(files.name, names, channels, "numbers of channels", "set data.channels 1 to mix them")
    lengths = [config.length or form[2] for form in forms]
    hint = (
        f"set data.length, such as {max(lengths)}; longer ones are cut, shorter ones end in silence"
    )
    length = _one(files.name, names, lengths, "lengths", hint)
    mel = LogMel.at(rate) if config.sound == "log-mel" else None
    length += -length % (mel.hop if mel else 1)
    data = torch.from_numpy(np.stack([_fitted(values, length) for values in found]))
    if mel:
        columns = torch.cat([mel.spectrogram(part).mT for part in data.split(256)])
        data = columns[..., None, :]  # (N, C, frames, 1, bands)
        std, mean = (float(value) for value in torch.std_mean(data.double(), correction=0))
    else:
        std, mean = float(data.double().square().mean().sqrt()), 0.0
    std = std or 1.0
    data = (data - mean) / std
    about = {"mean": [mean] * data.shape[1], "std": [std] * data.shape[1], "sample_rate": rate}
    about |= {"log_mel": asdict(mel)} if mel else {}
    notes = [*files.notes]
    short, long = (sum(form[2] * sign < length * sign for form in forms) for sign in (1, -1))
    if short or long:
        notes.append(
            f"{files.name}: of {len(forms)} sounds, {long} are cut to {length} samples, and {short} are shorter "
            "and end in silence"
        )
    notes.append(
        f"{files.name}: sounds of {rate} Hz, {length} samples ({length / rate:.3g} s)"
        + (f", as spectrograms of {mel.bands} bands and {length // mel.hop} frames" if mel else "")
    )
    labels = None if files.labels is None else files.labels[rows]
    return Tensors(
        files.name,
        data,
        labels,
        len(files.class_names) if labels is not None else 0,
        files.class_names if labels is not None else (),
        tuple(notes),
        about,
    )


def look(
    files: PictureFiles,
) -> tuple[dict[int, tuple[int, int, int]], dict[int, str]]:
    """The rate, channels and length of each sound that can be opened, and why the others cannot."""
    found: dict[int, tuple[int, int, int]] = {}
    broken: dict[int, str] = {}
    for row in range(len(files.names)):
        try:
            with files.open(row) as opened:
                found[row] = _read(opened, DataConfig())[1]
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            if isinstance(error, MissingDataError):
                raise
            broken[row] = " ".join(str(error).split())
    return found, broken


_RESAMPLE = "resample them to one rate first, such as by sox or ffmpeg"


def _check_settings(name: str, config: DataConfig) -> None:
    for setting in ("size", "flip", "range", "standardise"):
        if getattr(config, setting):
            raise ValueError(f"{name} holds sounds: leave data.{setting} out")
    if config.channels not in (0, 1):
        raise ValueError(
            f"data.channels must be 1 (mixed) or 0 (as they are) for sounds; got {config.channels}"
        )


def _read(opened: BinaryIO, config: DataConfig) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The values (C, L) of a sound, L at most `config.length`, and its rate, channels and whole length."""
    with open_sound(opened) as sound:
        form = (sound.samplerate, sound.channels, sound.frames)
        count = min(sound.frames, config.length or sound.frames)
        if count <= 0:
            raise ValueError("it has no samples")
        check_memory("a sound", 8 * count * sound.channels, "set data.length")
        values = sound.read(count, dtype="float32", always_2d=True).T
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    return values.mean(0, keepdims=True) if config.channels == 1 else values, form


def open_sound(file: Any, mode: str = "r", **settings: Any) -> SoundFile:
    """A file as soundfile opens it. Raises MissingDataError where soundfile is not installed."""
    try:
        from soundfile import SoundFile
    except (ImportError, OSError) as error:
        raise MissingDataError(
            "sounds need soundfile, which is not installed: pip install 'eqm[sound]'"
        ) from error
    return SoundFile(file, mode, **settings)


def _one(name: str, names: Sequence[str], values: Sequence[int], what: str, advice: str) -> int:
    """The only one of `values`; raises ValueError with two examples where there are several."""
    counts = Counter(values).most_common()
    if len(counts) > 1:
        examples = [f"{value} ({names[values.index(value)]})" for value, _ in counts[:3]]
        raise ValueError(f"{name} holds sounds of several {what}, {said(examples)}: {advice}")
    return counts[0][0]


def _fitted(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, length - values.shape[1])))


def like_sounds_of(
    metadata: Mapping[str, Any], shape: Sequence[int] | None, config: DataConfig
) -> DataConfig:
    """The config with which sounds are read as a model of sounds with this `shape` and these metadata takes them.

    It is unchanged for other models, and for arrays. Raises ValueError for damaged metadata."""
    data = metadata.get("data") or {}
    if not data.get("sample_rate") or shape is None or config.path.endswith((".npy", ".npz")):
        return config
    mel = LogMel.of(metadata)
    return replace(
        config,
        length=shape[1] * (mel.hop if mel else 1),
        channels=int(shape[0] == 1),
        sound="log-mel" if mel else "waveform",
    )


def to_sound(samples: torch.Tensor, metadata: Mapping[str, Any]) -> torch.Tensor:
    """Samples (N, ...) of a model of sounds with these metadata as waveforms (N, C, L) in -1..1.

    Log-mel spectrograms become waveforms by `LogMel.sound`. Raises ValueError for metadata of another model."""
    values = in_own_units(samples.detach().float().cpu(), metadata)
    mel = LogMel.of(metadata)
    if mel is None:
        return values
    if values.ndim != 5 or values.shape[3:] != (1, mel.bands):
        raise ValueError(
            f"samples must be log-mel spectrograms (N, C, frames, 1, {mel.bands}); got {tuple(values.shape)}"
        )
    return mel.sound(values[..., 0, :].mT)


def write_sound(samples: torch.Tensor, rate: int, file: Any) -> None:
    """Returns nothing; writes samples (C, L) in -1..1 as a .wav of 16 bits. Larger values are cut, and a
    warning says how many."""
    values = samples.detach().float().cpu().numpy()
    if loud := int((np.abs(values) > 1).sum()):
        LOG.warning("%d of %d values of a sound are beyond -1..1 and are cut", loud, values.size)
    with open_sound(
        file, "w", samplerate=rate, channels=len(values), format="WAV", subtype="PCM_16"
    ) as sound:
        sound.write(values.clip(-1, 1).T)
