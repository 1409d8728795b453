"""Good and defective parts: solar cells, magnetic tiles and screws."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from eqm.data import DataConfig, Source, open_source, split
from eqm.randomness import SampleRandom


@dataclass(frozen=True, eq=False)
class Parts:
    """Pictures (N, 1, S, S) in -1..1; each is seen whole, resized to a square."""

    name: str
    train: Tensor
    good: Tensor
    """Other good parts, for measuring alone."""
    bad: Tensor
    kinds: list[str]
    """The kind of each defective part."""
    masks: list[Tensor]
    """Masks of the good and then the defective parts, at the size of their files; empty if there are none."""

    def few(self, count: int) -> Parts:
        """At most so many pictures of each part, to check that a benchmark runs."""
        good = min(count, len(self.good))
        chosen = torch.linspace(0, len(self.bad) - 1, min(count, len(self.bad))).long().tolist()
        masks = [self.masks[k] for k in (*range(good), *(len(self.good) + k for k in chosen))]
        return Parts(
            *(self.name, self.train[: 2 * count], self.good[:good], self.bad[chosen]),
            *([self.kinds[k] for k in chosen], masks),
        )


def solar_cells() -> Parts:
    """ELPV: 1,508 functional cells, a fifth for measuring, and 715 defective ones, at 224x224."""
    config = DataConfig("elpv", size=224, classes=("functional",), labels=False)
    train, good = split(open_source(config), config.val_fraction)
    bad = everything(open_source(replace(config, classes=("defective",))))
    return Parts(
        "solar cells", everything(train), everything(good), bad, ["defective"] * len(bad), []
    )


def tiles() -> Parts:
    """Magnetic tiles: 952 free of defects, a random fifth for measuring, and 392 others, at 224x224."""
    with ZipFile(_file("magnetic-tiles.zip")) as archive:
        names = [name for name in archive.namelist() if name.startswith("images/")]
        free = [name for name in names if "/free/" in name]
        order = torch.randperm(len(free), generator=torch.Generator().manual_seed(0)).tolist()
        held = len(free) // 5
        good = [free[k] for k in order[:held]]
        bad = [name for name in names if "/free/" not in name]
        masks = [name.replace("images/", "masks/").replace(".jpg", ".png") for name in bad]
        return _parts(
            "magnetic tiles", archive, ([free[k] for k in order[held:]], good, bad), masks, 224
        )


def screws() -> Parts:
    """MVTec's screws: 320 good ones to train, 41 good and 119 defective ones to measure, 256x256."""
    with ZipFile(_file("mvtec-screw256.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        train = [name for name in names if name.startswith("train/good/")]
        good = [name for name in names if name.startswith("test/good/")]
        bad = [name for name in names if name.startswith("test/") and "/good/" not in name]
        masks = [name.replace("test/", "masks/") for name in bad]
        return _parts("screws", archive, (train, good, bad), masks, 256)


SETS: dict[str, Callable[[], Parts]] = {"elpv": solar_cells, "tiles": tiles, "screw": screws}


def everything(source: Source) -> Tensor:
    """All pictures of a source."""
    rows = torch.arange(len(source))
    return source.batch(rows, SampleRandom(0, rows))


def _file(name: str) -> Path:
    """Raises FileNotFoundError where the data are not."""
    path = Path(os.environ.get("EQM_DATA", "../shared/data")) / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; set EQM_DATA to the folder of {name}")
    return path


def _parts(
    name: str, archive: ZipFile, parts: tuple[list[str], ...], masks: list[str], side: int
) -> Parts:
    def grey(member: str) -> Tensor:
        with Image.open(BytesIO(archive.read(member))) as picture:
            return torch.from_numpy(np.array(picture.convert("L"))).float()[None]

    def squares(members: list[str]) -> Tensor:
        found = [grey(member)[None] for member in members]
        return torch.cat([_square(x / 127.5 - 1, side) for x in found])

    train, good, bad = parts
    empty = [torch.zeros_like(grey(member)[0], dtype=torch.bool) for member in good]
    return Parts(
        *(name, squares(train), squares(good), squares(bad)),
        *(
            [Path(member).parent.name for member in bad],
            empty + [grey(member)[0] > 0 for member in masks],
        ),
    )


def _square(x: Tensor, side: int) -> Tensor:
    return interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
