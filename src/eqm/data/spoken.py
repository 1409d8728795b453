"""`spoken-digits`: recordings of spoken digits, which the user brings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from eqm.data.archives import folder, zipped
from eqm.data.config import DataConfig
from eqm.data.picture_files import PictureFiles
from eqm.data.sounds import sounds
from eqm.data.source import MissingDataError, Source, digest
from eqm.registry import register

PLACES = ("spoken-digits.zip", "free-spoken-digit-dataset/recordings")
"""Where the recordings are looked for, in the folder EQM_DATA or here."""
LENGTH = 6144
"""Samples of a recording by default, .77 s; 2.4 % of them are longer."""
TESTED = 5
"""The first recordings of each digit by each speaker are the split `test`, as the data set asks."""


@register("source", "spoken-digits")
def spoken_digits(config: DataConfig) -> Source:
    """The 3,000 recordings of the Free Spoken Digit Dataset, 8 kHz, with ten classes; CC BY-SA 4.0.

    Six speakers say each digit 50 times. A file is called DIGIT_SPEAKER_NUMBER.wav. `config.split` is train,
    test or all."""
    base = Path(os.environ.get("EQM_DATA", "."))
    found = next((base / place for place in PLACES if (base / place).exists()), None)
    if found is None:
        raise MissingDataError(
            f"spoken-digits needs {PLACES[0]} or {PLACES[1]} in {base.resolve()}: get it by `git clone "
            "https://github.com/Jakobovski/free-spoken-digit-dataset`, or set EQM_DATA to its folder"
        )
    read = zipped if found.is_file() else folder
    every = read(found, replace(config, split="all", labels_from="", labels=False))
    words = [Path(name).stem.split("_") for name in every.names]
    if odd := [name for name, word in zip(every.names, words, strict=True) if not _is_named(word)]:
        raise ValueError(
            f"{found} must hold files such as 7_theo_12.wav; got {odd[0]}: get it again"
        )
    tested = torch.tensor([int(word[2]) < TESTED for word in words])
    parts = {"train": ~tested, "test": tested, "all": torch.ones_like(tested)}
    if config.split not in parts:
        raise ValueError(
            f"spoken-digits has the splits train, test and all; got data.split {config.split}: take one of them"
        )
    rows = parts[config.split].nonzero().flatten().tolist()
    labels = torch.tensor([int(words[row][0]) for row in rows])
    return sounds(_only(every, rows, labels), replace(config, length=config.length or LENGTH))


def _is_named(word: Sequence[str]) -> bool:
    return len(word) == 3 and word[0] in list("0123456789") and word[2].isdecimal()


def _only(files: PictureFiles, rows: Sequence[int], labels: torch.Tensor) -> PictureFiles:
    return replace(
        files,
        name="spoken-digits",
        names=[files.names[row] for row in rows],
        labels=labels,
        class_names=tuple("0123456789"),
        fingerprint=digest(files.fingerprint, *rows),
        open=lambda row: files.open(rows[row]),
    )
