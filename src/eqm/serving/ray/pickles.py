"""Requests and results as bytes for another process that has the same models."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

_DEVICE = "device of the receiver"
_THERE = object()


def to_bytes(value: object, parts: Mapping[str, object]) -> bytes:
    """A pickle of `value`. `parts` are objects that the other process has: only their names are in it.

    Raises ValueError for values that cannot be pickled, such as open files.
    """
    found = io.BytesIO()
    try:
        _pickler()(found, parts).dump(value)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ValueError(f"this cannot be sent to another process ({error}): pass data") from error
    return found.getvalue()


def from_bytes(
    data: bytes, parts: Mapping[str, object], *, device: torch.device | str = "cpu"
) -> Any:
    """The value that `to_bytes` made `data` of, with the `parts` of this process and tensors on `device`.

    Only for bytes from a process of the same user: a pickle can run any code."""
    return _Unpickler(io.BytesIO(data), parts, torch.device(device)).load()


@cache
def _pickler() -> Any:
    from ray.cloudpickle import Pickler  # also takes functions that no module holds

    class Pickles(Pickler):  # type: ignore[misc]
        def __init__(self, file: io.BytesIO, parts: Mapping[str, object]) -> None:
            super().__init__(file, protocol=5)
            self._names = {id(part): name for name, part in parts.items() if part is not None}

        def persistent_id(self, obj: object) -> str | None:
            return _DEVICE if obj is _THERE else self._names.get(id(obj))

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is Tensor:  # small ones take a twentieth of the time of torch's own way
                row = obj.detach().cpu().contiguous().flatten()
                return _tensor, (
                    row.view(torch.uint8).numpy().tobytes(),
                    obj.dtype,
                    obj.shape,
                    _THERE,
                )
            return super().reducer_override(obj)

    return Pickles


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, parts: Mapping[str, object], device: torch.device) -> None:
        super().__init__(file)
        self._parts, self._device = parts, device

    def persistent_load(self, name: str) -> object:
        return self._device if name == _DEVICE else self._parts[name]


def _tensor(data: bytes, dtype: torch.dtype, shape: torch.Size, device: torch.device) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape).to(device)
