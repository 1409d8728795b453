"""Emoji with captions, drawn in five styles, as `eqm data download emoji` leaves them."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eqm.data.config import DataConfig
from eqm.data.source import MissingDataError, Source
from eqm.registry import register

CLASSES = ("style", "name", "code", "group")
"""What `data.labels_from` may say."""


def emoji_folder() -> Path:
    """Where the emoji are kept: `emoji` in $EQM_DATA, else in ~/.cache/eqm."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eqm"
    return Path(os.environ.get("EQM_DATA") or cache) / "emoji"


@register("source", "emoji")
def _emoji(config: DataConfig) -> Source:
    """8,157 emoji with captions, 1,652 concepts in five styles; `split` test has the pairs of concept and
    style that training never sees. `labels_from` may be style, name, code or group; by default there are no
    classes."""
    from eqm.data.arrays import from_array
    from eqm.data.captions import with_captions
    from eqm.data.emoji_download import STYLES

    splits = {"train": ("train",), "test": ("test",), "all": ("train", "test")}
    if config.split not in splits:
        raise ValueError(f"emoji has the splits train, test and all; got {config.split}")
    if config.labels_from not in ("", *CLASSES):
        raise ValueError(
            f"emoji takes data.labels_from {', '.join(CLASSES)}; got {config.labels_from}: choose one of them"
        )
    read = [sample for split in splits[config.split] for sample in _samples(split)]
    labels = [about[config.labels_from] for _, about in read] if config.labels_from else None
    config = replace(config, layout="NHWC", range=(0, 255))
    found = from_array("emoji", np.stack([page for page, _ in read]), labels, config)
    licence = ", ".join(f"{each.licence} ({style})" for style, each in STYLES.items())
    found = replace(found, metadata={**found.metadata, "license": licence})
    return with_captions(found, [_captions(about) for _, about in read])


def _samples(split: str) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """The pictures (64, 64, 3) of a split, and what is known of each."""
    from PIL import Image

    path = emoji_folder() / f"{split}.tar"
    if not path.is_file():
        raise MissingDataError(
            f"emoji is not in {path.parent}: get it by `eqm data download emoji`, 30 MB of npm packages"
        )
    try:
        with tarfile.open(path) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    except (OSError, tarfile.TarError) as error:
        raise ValueError(
            f"cannot read {path} ({error}): run `eqm data download emoji` again"
        ) from error
    for name in content:
        if name.endswith(".png"):
            page = np.asarray(Image.open(io.BytesIO(content[name])))
            yield page, json.loads(content[f"{name.removesuffix('png')}json"])


def _captions(about: Mapping[str, Any]) -> list[str]:
    """The captions of a picture for training: the one of `caption`, the same without keywords, without a
    style, and in another order."""
    style, name, keywords = about["style"], about["name"], about["keywords"]
    more = _new(name, keywords)
    return [
        caption(style, name, keywords),
        f"{style}: {name}",
        ", ".join([name, *more]),
        f"{style}: " + ", ".join([*reversed(more), name]),
    ]


def caption(style: str, name: str, keywords: Sequence[str]) -> str:
    """The text of a picture: style, name, and the keywords that say more than the name.

    >>> caption("noto", "cat face", ["cat", "face", "pet"])
    'noto: cat face, pet'
    """
    return f"{style}: " + ", ".join([name, *_new(name, keywords)])


def _new(name: str, keywords: Sequence[str]) -> list[str]:
    """The keywords that have a word which is neither in the name nor in a keyword before."""
    known, found = set(words(name)), []
    for keyword in keywords:
        if not known.issuperset(words(keyword)):
            known.update(words(keyword))
            found.append(keyword)
    return found


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())
