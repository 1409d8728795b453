"""The arrays in .npy, .npz and IDX files; headers are checked against the bytes that are there."""

from __future__ import annotations

import gzip
import io
import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from eqm.reading import BoundedFile, check_unpacked, open_regular

_HEADER = 1 << 16
"""Bytes of an .npy's header at most."""
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_DAMAGED = (
    *(ValueError, TypeError, OSError, EOFError, OverflowError, MemoryError, RecursionError),
    *(SyntaxError, tokenize.TokenError, NotImplementedError, zlib.error, zipfile.BadZipFile),
)


class _ObjectsError(ValueError):
    """Raised for an array of Python objects, which are not unpickled."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name. Those that are not compressed are mapped, not read, as they may
    be larger than the memory. Arrays of Python objects are not read: an empty one stands for each.
    Raises ValueError for another file."""
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(BoundedFile(path)) as archive:
            members = archive.infolist()
            packed = [one for one in members if one.compress_type != zipfile.ZIP_STORED]
            size = path.stat().st_size
            check_unpacked(path.name, size, sum(member.file_size for member in packed))
            for one in members:
                name = one.filename.removesuffix(".npy")
                try:
                    found[name] = _member(path, archive, one)
                except _ObjectsError:
                    found[name] = np.empty(0, object)
            return found
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is not a readable .npz of plain arrays ({error}): save it again"
        ) from error


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        shape, fortran, dtype = _npy_header(file, member.file_size)
        start, count = file.tell(), math.prod(shape)
        if member.compress_type != zipfile.ZIP_STORED or not count:
            found = np.frombuffer(bytearray(file.read(count * dtype.itemsize)), dtype)
            return found.reshape(shape, order="F" if fortran else "C")
    with path.open("rb") as plain:  # a member follows its header, name and extra field
        plain.seek(member.header_offset + 26)
        lengths = int.from_bytes(plain.read(2), "little") + int.from_bytes(plain.read(2), "little")
    return _mapped(path, dtype, start + member.header_offset + 30 + lengths, shape, fortran)


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy, mapped, not read, as it may be larger than the memory.

    Raises ValueError for another file."""
    try:
        with open_regular(path) as file:
            shape, fortran, dtype = _npy_header(file, os.fstat(file.fileno()).st_size)
            if not math.prod(shape):
                return np.zeros(shape, dtype)
            return _mapped(path, dtype, file.tell(), shape, fortran)
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is not a readable .npy of a plain array ({error}): save it again"
        ) from error


def _mapped(
    path: Path, dtype: np.dtype, start: int, shape: tuple[int, ...], fortran: bool
) -> np.ndarray:
    # Copy on write, as torch warns of memory that must not be written.
    return np.memmap(path, dtype, "c", start, shape, "F" if fortran else "C")


def _npy_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is in Fortran's order, and dtype of the .npy in `file`, which has `size` bytes."""
    magic = file.read(8)
    if magic[:2] == b"PK":
        raise ValueError("it is an .npz: rename it")
    if magic[:6] != b"\x93NUMPY":
        raise ValueError("it does not begin as an .npy does")
    old = magic[6] == 1
    length = file.read(2 if old else 4)
    if int.from_bytes(length, "little") > _HEADER:
        raise ValueError("its header is too long")
    header = io.BytesIO(length + file.read(int.from_bytes(length, "little")))
    form = np.lib.format
    read = form.read_array_header_1_0 if old else form.read_array_header_2_0
    try:
        shape, fortran, dtype = read(header)
    except _DAMAGED as error:  # such as what Python says of text that is no literal
        raise ValueError("its header is damaged") from error
    if dtype.hasobject or not dtype.itemsize:
        raise _ObjectsError("it holds Python objects or nothing at all, not numbers")
    expected, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or expected > there:
        raise ValueError(
            f"its header says {dtype} {shape}, {expected:,} bytes, but {there:,} are there"
        )
    return shape, fortran, dtype


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, plain or .gz. Raises ValueError for another or a cut file."""
    try:
        with open_regular(path) as raw:
            size, packed = os.fstat(raw.fileno()).st_size, raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if packed else raw as file:
                return _idx(path, file, size, packed)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): copy it again") from error


def _idx(path: Path, file: BinaryIO, size: int, packed: bool) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or head[3] > 8:
        raise ValueError(
            f"{path} is not an IDX file, as its first four bytes are {head.hex()}: copy it again"
        )
    sides = file.read(4 * head[3])
    shape = tuple(np.frombuffer(sides[: len(sides) // 4 * 4], ">u4").tolist())
    dtype = np.dtype(_IDX_TYPES[head[2]])
    expected, there = math.prod(shape) * dtype.itemsize, size - 4 - len(sides)
    if packed:
        check_unpacked(str(path), size, expected)
    content = file.read(expected + 1) if packed or expected == there else None
    if len(shape) != head[3] or content is None or len(content) != expected:
        found = f"{max(there, 0):,}" if content is None else f"{len(content):,} or more"
        raise ValueError(
            f"{path} must hold {expected:,} bytes for an array {shape}; it holds {found}: copy it again"
        )
    array = np.frombuffer(bytearray(content), dtype)  # a copy that may be written
    return array.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
