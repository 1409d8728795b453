"""Labelled images in memory, and where they come from."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eqm.randomness import Draws


@dataclass(frozen=True, eq=False)
class Images:
    """N images of one shape, with a label each or none.

    `data` is (N, C, H, W), float32, black -1 to white 1; `labels` (N,) int64 in 0..num_classes-1,
    or None, when `num_classes` is 0. Raises ValueError when that does not hold, or a value is not
    finite.
    """

    name: str
    data: Tensor
    labels: Tensor | None = None
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or len(self.data) == 0:
            raise ValueError(
                f"{self.name}: images must have shape (N, C, H, W) with N > 0; got {tuple(self.data.shape)}"
            )
        if self.data.dtype != torch.float32:
            raise ValueError(f"{self.name}: images must be float32; got {self.data.dtype}")
        finite = self.data.isfinite().flatten(1).all(1)
        if not finite.all():
            bad = (~finite).nonzero().flatten().tolist()
            raise ValueError(
                f"{self.name}: {len(bad)} of {len(finite)} images hold NaN or infinity, "
                f"the first is number {bad[0]}: remove them"
            )
        if self.data.abs().max() > 1.001:
            low, high = self.data.min().item(), self.data.max().item()
            raise ValueError(
                f"{self.name}: images must lie in -1..1; got {low:g}..{high:g}: rescale them, 0..255 as uint8"
            )
        if self.labels is None:
            if self.num_classes:
                raise ValueError(f"{self.name}: {self.num_classes} classes need labels; got none")
            return
        if self.labels.dtype != torch.int64 or self.labels.shape != self.data.shape[:1]:
            raise ValueError(
                f"{self.name}: labels must be int64 of shape ({len(self)},); "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"{self.name}: labels must lie in 0..{self.num_classes - 1}; got {low}..{high}"
            )

    @property
    def classes(self) -> Tensor:
        """The labels, (N,). Raises ValueError where there are none."""
        if self.labels is None:
            raise ValueError(f"{self.name} has no labels, which are needed here")
        return self.labels

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.data.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of images and labels: the same data give the same fingerprint."""
        digest = hashlib.sha256(str(tuple(self.data.shape)).encode())
        digest.update(self.data.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def __getitem__(self, rows: Tensor) -> Images:
        """The images at `rows`, indices or a mask."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, data=self.data[rows], labels=labels)

    def batch(self, rows: Tensor, draws: Draws) -> Tensor:
        """The images at `rows` (B,), (B, C, H, W)."""
        return self.data[rows]

    def split(self, share: float, *, seed: int = 0) -> tuple[Images, Images]:
        """Two disjoint parts at random, the second with `share` of each class.

        Without labels, all images are one class."""
        kinds = torch.zeros(len(self)) if self.labels is None else self.labels
        generator = torch.Generator().manual_seed(seed)
        second = torch.zeros(len(self), dtype=torch.bool)
        for kind in kinds.unique():
            rows = (kinds == kind).nonzero().flatten()
            chosen = torch.randperm(len(rows), generator=generator)[: round(share * len(rows))]
            second[rows[chosen]] = True
        if second.all() or not second.any():
            raise ValueError(
                f"{self.name}: a share of {share:g} leaves one part of {len(self)} images empty: "
                "take another share"
            )
        return self[~second], self[second]


def digits() -> Images:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries.

    They are the test part of UCI's Optical Recognition of Handwritten Digits; grey values 0..16
    become -1..1.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError("the digits need scikit-learn: pip install 'eqm[demo]'") from error

    bunch = load_digits()
    data = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1  # (N, 1, 8, 8)
    return Images("digits", data, torch.from_numpy(bunch.target).long(), num_classes=10)


def open_images(source: str) -> Images:
    """The images that `source` names: "digits", or the path of an .npz.

    The .npz holds `images` and, if there are any, `labels`. `images` is (N, H, W), (N, H, W, C)
    with 1, 3 or 4 channels, or (N, C, H, W); uint8 0..255 or floating point -1..1. Raises
    ValueError for anything else, with what was expected.
    """
    if source == "digits":
        return digits()
    path = Path(source)
    if path.suffix != ".npz":
        raise ValueError(
            f'data source must be "digits" or the path of an .npz file; got "{source}"'
        )
    if not path.is_file():
        raise ValueError(
            f"no file {path}: give the path of an .npz with arrays `images` and `labels`"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz of plain arrays ({error})") from error
    if "images" not in found:
        raise ValueError(
            f"{path} must hold an array `images`; it holds {', '.join(sorted(found)) or 'nothing'}"
        )
    labels = found.get("labels")
    if labels is not None and (
        labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0
    ):
        raise ValueError(
            f"{path}: labels must be whole numbers of shape (N,); got {labels.dtype} {labels.shape}"
        )
    return Images(
        path.stem,
        _channels_first(found["images"], path),
        None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        num_classes=0 if labels is None else int(labels.max()) + 1,
    )


def _channels_first(images: np.ndarray, path: Path) -> Tensor:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3, 4):
        images = images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1
    if images.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(images)).float()
    raise ValueError(f"{path}: images must be uint8 or floating point; got {images.dtype}")
