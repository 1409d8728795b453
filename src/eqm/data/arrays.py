"""Arrays in files: .npz, .npy, and the IDX files of MNIST."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eqm.data.config import DataConfig
from eqm.data.decoding import centre_crop
from eqm.data.images import Images, Tensors, int_labels, warn_of_range

_NPZ_NAMES = (("images", "labels"), ("arr_0", "arr_1"))
"""Names of images and labels in an .npz; ADM and `eqm sample` write the second."""
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_PARTS = {"train": "training", "t10k": "test"}


def from_npz(path: Path, config: DataConfig) -> Tensors:
    """The arrays `images` and, if there are any, `labels` of an .npz; or `arr_0` and `arr_1`.

    `images` is (N, H, W), (N, H, W, C) with 1, 3 or 4 channels, or (N, C, H, W); uint8 0..255,
    uint16 0..65535 or floating point -1..1. Points are (N, 2), floating point. Raises ValueError
    for anything else.
    """
    found = read_npz(path)
    for images, labels in _NPZ_NAMES:
        if images in found:
            return from_array(path.stem, found[images], found.get(labels), config)
    raise ValueError(
        f"{path} must hold an array `images` or `arr_0`; it holds {', '.join(sorted(found)) or 'nothing'}"
    )


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name. Those that are not compressed are mapped, not read, as they may
    be larger than the memory. Raises ValueError for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            return {
                one.filename.removesuffix(".npy"): _array(path, archive, one) for one in members
            }
    except (ValueError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz of plain arrays ({error})") from error


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    form = np.lib.format
    with archive.open(member) as file:
        old = form.read_magic(file) == (1, 0)
        header = form.read_array_header_1_0 if old else form.read_array_header_2_0
        shape, fortran, dtype = header(file)
        start = file.tell()
    if member.compress_type != zipfile.ZIP_STORED or dtype.hasobject or not math.prod(shape):
        with archive.open(member) as file:
            return form.read_array(file, allow_pickle=False)
    with path.open("rb") as plain:  # a member follows its header, name and extra field
        plain.seek(member.header_offset + 26)
        lengths = int.from_bytes(plain.read(2), "little") + int.from_bytes(plain.read(2), "little")
    start += member.header_offset + 30 + lengths
    # Copy on write, as torch warns of memory that must not be written.
    return np.memmap(path, dtype, "c", start, shape, "F" if fortran else "C")


def from_npy(path: Path, config: DataConfig) -> Tensors:
    """The images or points of an .npy, of a shape that `from_npz` takes.

    Labels come from NAME-labels.npy beside it, if there is one. The file is mapped, not read, as it
    may be larger than the memory.
    """
    beside = path.with_name(f"{path.stem}-labels.npy")
    try:
        # Copy on write, as torch warns of memory that must not be written.
        images = np.load(path, mmap_mode="c", allow_pickle=False)
        labels = np.load(beside, allow_pickle=False) if beside.is_file() else None
        for found in (images, labels):
            if not (found is None or isinstance(found, np.ndarray)):
                raise ValueError("it is an .npz: rename it")
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy of a plain array ({error})") from error
    return from_array(path.stem, images, labels, config)


def from_array(
    name: str,
    images: np.ndarray,
    labels: np.ndarray | None,
    config: DataConfig,
    class_names: tuple[str, ...] = (),
) -> Tensors:
    """Images or points of an array, with the size and channels that `config` sets."""
    numbers, classes = int_labels(name, labels)
    if images.ndim == 2:
        if images.dtype.kind not in "iuf":
            raise ValueError(f"{name}: points must be real numbers; got {images.dtype}")
        return Tensors(name, torch.from_numpy(np.array(images, np.float32)), numbers, classes)
    data = _fitted(name, _channels_first(name, images), config)
    return Images(name, data, numbers, classes, flip=config.flip, class_names=class_names)


def _channels_first(name: str, images: np.ndarray) -> Tensor:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3, 4):
        images = images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8:
        return torch.from_numpy(images)
    if images.dtype == np.uint16:
        return torch.from_numpy(images.astype(np.float32)) / 32767.5 - 1
    if images.dtype.kind == "f":
        floats = torch.from_numpy(images.astype(np.float32, copy=False))
        warn_of_range(name, floats)
        return floats
    raise ValueError(f"{name}: images must be uint8, uint16 or floating point; got {images.dtype}")


def _fitted(name: str, data: Tensor, config: DataConfig) -> Tensor:
    """The images (N, C, H, W) with the channels and the size that `config` sets."""
    if config.channels and data.ndim == 4 and config.channels != data.shape[1]:
        if not {config.channels, data.shape[1]} <= {1, 3, 4}:
            raise ValueError(
                f"{name}: data.channels converts between 1, 3 and 4 channels; got {data.shape[1]} to "
                f"{config.channels}: leave it 0"
            )
        data = torch.cat([_coloured(part, config.channels) for part in data.split(1024)])
    size = config.size
    if size <= 0 or data.ndim != 4 or data.shape[2:] == (size, size):
        return data
    from PIL import Image

    out = torch.empty(*data.shape[:2], size, size, dtype=data.dtype)
    for source, target in zip(data.flatten(0, 1), out.flatten(0, 1), strict=True):
        plane = np.array(centre_crop(Image.fromarray(source.contiguous().numpy()), size))
        target.copy_(torch.from_numpy(plane))
    return out if out.dtype == torch.uint8 else out.clamp_(-1, 1)  # the filter overshoots


def is_idx(path: Path) -> bool:
    """Whether a file is named as IDX images are, such as train-images-idx3-ubyte.gz."""
    return path.name.removesuffix(".gz").endswith("-ubyte") and "images" in path.name


def from_idx(path: Path, config: DataConfig, *, name: str = "", part: str = "train") -> Images:
    """The images of an IDX file, plain or .gz, or of a folder's `part`, train or t10k.

    Labels come from the file beside it with `labels-idx1` in its name. Raises ValueError when a file
    is missing, cut short, or of another kind.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if is_idx(file) and part in file.name)
        if not found:
            raise ValueError(
                f"no IDX images of the {_PARTS[part]} part in {path}: "
                f"expected {part}-images-idx3-ubyte or the same with .gz"
            )
        name, path = name or path.resolve().name, found[0]
    images = read_idx(path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"{path} must hold bytes of shape (N, H, W); it holds {images.dtype} {images.shape}"
        )
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    other = beside.with_suffix("") if beside.suffix == ".gz" else Path(f"{beside}.gz")
    labels = next((read_idx(file) for file in (beside, other) if file.is_file()), None)
    source = from_array(name or path.name.split(".")[0], images, labels, config)
    assert isinstance(source, Images)  # three axes were asked for
    return source


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, plain or .gz. Raises ValueError for another or a cut file."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): copy it again") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise ValueError(f"{path} is not an IDX file: its first four bytes are {raw[:4].hex()}")
    start = 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:start], ">u4").tolist())
    dtype = np.dtype(_IDX_TYPES[raw[2]])
    expected = math.prod(shape) * dtype.itemsize
    if len(shape) != raw[3] or len(raw) - start != expected:
        raise ValueError(
            f"{path} must hold {expected:,} bytes for an array {shape}; it holds "
            f"{max(len(raw) - start, 0):,}: copy it again"
        )
    array = np.frombuffer(bytearray(raw), dtype, offset=start)  # a copy that may be written
    return array.astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _coloured(images: Tensor, channels: int) -> Tensor:
    """Images (N, 1, 3 or 4, H, W) with other channels, as Pillow converts files: transparent pixels
    become white, and grey weighs colours by ITU-R 601."""
    low, high = (0.0, 255.0) if images.dtype == torch.uint8 else (-1.0, 1.0)
    x = images.float()
    if x.shape[1] == 4:
        share = (x[:, 3:] - low) / (high - low)
        x = x[:, :3] * share + high * (1 - share)
    if channels == 1:
        x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    elif x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    if channels == 4:
        x = torch.cat([x, torch.full_like(x[:, :1], high)], 1)
    return x.round().byte() if images.dtype == torch.uint8 else x
