"""Latents on disk: shards of posterior means and standard deviations, and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import torch
from msgspec import Meta
from torch import Tensor

from eqm.checks import check_path
from eqm.encoders import AboutEncoder
from eqm.files import replacing
from eqm.randomness import SampleRandom
from eqm.schema import (
    Count,
    CountOrZero,
    Finite,
    NonNegative,
    check_fields,
    convert,
    read_json,
    shown,
)
from eqm.tensor_files import read_tensors

MANIFEST, FORMAT, VERSION = "manifest.json", "eqm latents", 1
STORAGE = {"float16": torch.float16, "float32": torch.float32}
"""Dtypes of the shards."""
MOST_SHARDS = 100_000
"""The most shards of a folder."""
Side = Annotated[int, Meta(ge=1, le=2**24)]


class AboutSource(TypedDict):
    """What is stored about the images."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Shard:
    """One file, as the manifest describes it."""

    images: Count
    """Number of images."""
    bytes: CountOrZero
    """Size of the file in bytes."""
    sha256: str
    """`digest` of its tensors."""


@dataclass(frozen=True)
class Manifest:
    """What a folder of latents holds once all shards are written."""

    encoder: AboutEncoder
    """Name, fingerprint, scale and shift of the encoder; stored latents are scaled and shifted."""
    source: AboutSource
    """Name and fingerprint of the images."""
    images: Count
    """Number of images."""
    shape: Annotated[tuple[Side, ...], Meta(min_length=3, max_length=3)]
    """Channels, height and width of a latent."""
    num_classes: CountOrZero
    """Number of classes; 0 without labels."""
    class_names: tuple[str, ...]
    """Names of the classes; empty where they have none."""
    views: Literal[1, 2]
    """Latents of an image: 2 with the mirror image, else 1."""
    storage: Literal["float16", "float32"]
    """Dtype of the shards."""
    shard_size: Count
    """Images in each shard except the last."""
    shards: tuple[Shard, ...] = ()
    """Empty until encoding is finished."""
    mean: tuple[Finite, ...] = ()
    """Mean of each channel, over all images and views."""
    std: tuple[NonNegative, ...] = ()
    """Standard deviation of each channel of a posterior sample."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.images > MOST_SHARDS * self.shard_size:
            raise ValueError(
                f"shard_size must be such that there are at most {MOST_SHARDS:,} shards; got {self.images:,} "
                f"images in shards of {self.shard_size:,}: take larger ones"
            )

    def rows(self, shard: int) -> range:
        """The numbers of the images in a shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, self.images))

    @property
    def files(self) -> list[str]:
        """The file names of all shards."""
        return [f"latents-{k:05}.safetensors" for k in range(-(-self.images // self.shard_size))]

    def save(self, folder: Path) -> None:
        """Returns nothing; writes manifest.json."""
        text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1)
        with replacing(folder / MANIFEST) as path:
            path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """The manifest of `folder`. Raises ValueError when there is none, or it is of another version."""
        path = folder / MANIFEST
        try:
            found = read_json(path, dict[str, Any], advice="encode again")
        except FileNotFoundError:
            raise ValueError(f"{folder} holds no latents: make them with eqm encode") from None
        if found.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not the manifest of latents: make them with eqm encode")
        if (version := found.pop("version", None)) != VERSION:
            raise ValueError(
                f"{path} must have version {VERSION}; got {shown(version)}: upgrade eqm or encode again"
            )
        manifest: Manifest = convert(found, cls, f"{path}: ", advice="encode again")
        return manifest


@dataclass(frozen=True, eq=False)
class Latents:
    """N encoded images on disk, with a label each or none.

    `tensors` are the memory-mapped shards in order: `mean` (n, views, C, H, W), `std` of the same
    shape unless it is 0, and `labels` (n,).
    """

    folder: Path
    manifest: Manifest
    tensors: tuple[Mapping[str, Tensor], ...]
    labels: Tensor | None
    """Their classes (N,) in 0..num_classes-1, or None."""
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    """Hexadecimal digest of latents and labels."""
    flip: bool = True
    """Mirror half of the images at random, if mirror images were encoded."""

    def __getstate__(self) -> dict[str, Any]:
        """Its fields without the shards, which another process maps again."""
        return self.__dict__ | {"tensors": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Returns nothing; maps the shards."""
        tensors = tuple(read_shard(state["folder"] / file) for file in state["manifest"].files)
        self.__dict__.update(state, tensors=tensors)

    def __len__(self) -> int:
        return self.manifest.images

    @property
    def name(self) -> str:
        """Name of the images."""
        return str(self.manifest.source["name"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of one latent."""
        return self.manifest.shape

    @property
    def metadata(self) -> dict[str, Any]:
        """The encoder, to be stored with the weights of a model of these latents."""
        return {"encoder": dict(self.manifest.encoder)}

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """A fresh sample of the posterior of each image at `rows` (B,), (B, C, H, W), float32."""
        views = self.manifest.views if self.flip else 1
        view = (random.uniform("flip") * views).long()
        shards = rows // self.manifest.shard_size
        data = torch.empty(len(rows), *self.shape)
        std: Tensor | None = None
        for number in shards.unique().tolist():
            here = (shards == number).nonzero().flatten()
            at = rows[here] - number * self.manifest.shard_size, view[here]
            shard = self.tensors[number]
            data[here] = shard["mean"][at].float()
            if "std" in shard:
                std = torch.zeros_like(data) if std is None else std
                std[here] = shard["std"][at].float()
        if std is not None:
            data += std * random.normal("posterior", self.shape)
        return data


def is_latents(folder: Path | str) -> bool:
    """Whether `folder` holds latents, whole or damaged."""
    path = Path(folder) / MANIFEST
    try:
        found = read_json(path) if path.exists() else {}
    except ValueError:
        return True
    return isinstance(found, dict) and found.get("format") == FORMAT


def open_latents(folder: Path | str, *, flip: bool = True) -> Latents:
    """The latents that `eqm encode` wrote to `folder`; if `flip`, half of them are mirrored.

    The sizes of the shards are checked; `check_latents` reads them whole. Raises ValueError where a
    shard is missing or damaged, or not all are written yet.
    """
    check_path(folder=folder)
    folder = Path(folder)
    manifest = Manifest.load(folder)
    if not manifest.shards:
        written = sum((folder / file).is_file() for file in manifest.files)
        raise ValueError(
            f"{folder} is not finished, {written} of {len(manifest.files)} shards are written: "
            "run the same eqm encode again"
        )
    if len(manifest.shards) != len(manifest.files):
        raise ValueError(f"{folder / MANIFEST} is damaged: encode again")
    tensors = []
    for number, (file, shard) in enumerate(zip(manifest.files, manifest.shards, strict=True)):
        path = folder / file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            found = (
                "is missing" if size is None else f"has {size:,} bytes instead of {shard.bytes:,}"
            )
            raise ValueError(f"{path} {found}: remove it and run the same eqm encode again")
        tensors.append(read_shard(path))
        _check_shard(tensors[-1], manifest, len(manifest.rows(number)), path)
    contents = " ".join([str(manifest.shape), *(shard.sha256 for shard in manifest.shards)])
    return Latents(
        folder,
        manifest,
        tuple(tensors),
        labels=torch.cat([shard["labels"] for shard in tensors]) if manifest.num_classes else None,
        num_classes=manifest.num_classes,
        class_names=manifest.class_names,
        fingerprint=hashlib.sha256(contents.encode()).hexdigest()[:16],
        flip=flip,
    )


def check_latents(folder: Path | str) -> Latents:
    """The latents of `folder`, after every byte was read and checked.

    Raises ValueError naming the damaged shards.
    """
    latents = open_latents(folder)
    damaged = [
        file
        for file, shard, tensors in zip(
            latents.manifest.files, latents.manifest.shards, latents.tensors, strict=True
        )
        if digest(tensors) != shard.sha256
    ]
    if damaged:
        raise ValueError(
            f"{folder}: {', '.join(damaged)} changed since they were written: "
            "remove them and run the same eqm encode again"
        )
    return latents


def read_shard(path: Path) -> dict[str, Tensor]:
    """The tensors of a shard, memory-mapped. Raises ValueError when the file is damaged."""
    return read_tensors(path, advice="remove it and run the same eqm encode again")


def _check_shard(
    tensors: Mapping[str, Tensor], manifest: Manifest, images: int, path: Path
) -> None:
    """Raises ValueError for a shard that does not hold what the manifest says."""
    latents = (STORAGE[manifest.storage], (images, manifest.views, *manifest.shape))
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"mean": latents}
    if "std" in tensors:
        expected["std"] = latents
    if manifest.num_classes:
        expected["labels"] = (torch.int64, (images,))
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    for name, wanted in expected.items():
        if found.get(name) != wanted:
            dtype, shape = wanted
            raise ValueError(
                f"{path} must hold {name} of {dtype} {shape}, as {MANIFEST} says; it holds "
                f"{found.get(name, 'none')}: encode again"
            )
    labels = tensors["labels"] if manifest.num_classes else torch.zeros(1)
    if not 0 <= labels.min() <= labels.max() < max(manifest.num_classes, 1):
        raise ValueError(f"{path} must hold labels below {manifest.num_classes:,}: encode again")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal digest of the names, dtypes, shapes and bytes of `tensors`."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()
