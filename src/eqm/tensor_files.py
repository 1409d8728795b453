"""Reading safetensors files that may be damaged or hostile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eqm.reading import open_regular
from eqm.schema import MOST_BYTES


@contextmanager
def open_tensors(
    path: Path | str,
    *,
    device: str | torch.device = "cpu",
    advice: str = "save or download it again",
) -> Iterator[Any]:
    """The open file, as `safetensors.safe_open` gives it. What fails in the block names the file too.

    Raises ValueError, one sentence that ends with `advice`, for a missing, damaged or cut file, what is
    not a regular file, and a header of more than MOST_BYTES.
    """
    try:
        with open_regular(path) as start:
            if int.from_bytes(start.read(8), "little") > MOST_BYTES:
                raise SafetensorError(f"its header is longer than {MOST_BYTES:,} bytes")
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: {advice}") from None
    except (SafetensorError, OSError, RuntimeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} must be a complete safetensors file; got {reason}: {advice}"
        ) from error


def read_tensors(
    path: Path | str,
    *,
    device: str | torch.device = "cpu",
    advice: str = "save or download it again",
) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name. Raises ValueError as `open_tensors` does."""
    with open_tensors(path, device=device, advice=advice) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
