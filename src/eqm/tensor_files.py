"""Reading safetensors files that may be damaged or hostile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from eqm.reading import open_regular
from eqm.schema import MOST_BYTES


@contextmanager
def open_tensors(path: Path | str, *, advice: str = "save or download it again") -> Iterator[Any]:
    """The open file, as `safetensors.safe_open` gives it. What fails in the block names the file too.

    Raises ValueError, one sentence that ends with `advice`, for a missing, damaged or cut file, what is
    not a regular file, and a header of more than MOST_BYTES.
    """
    try:
        with open_regular(path) as start:
            if int.from_bytes(start.read(8), "little") > MOST_BYTES:
                raise SafetensorError("its header is too long")
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: {advice}") from None
    except (SafetensorError, OSError, RuntimeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{path} must be a complete safetensors file; it is damaged or of another kind: {advice}"
        ) from error


def read_tensors(
    path: Path | str, *, advice: str = "save or download it again"
) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name. Raises ValueError as `open_tensors` does."""
    with open_tensors(path, advice=advice) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def at_most(tensors: int, values: int) -> Iterator[None]:
    """A block that builds modules; ValueError once they have more tensors, or more values in them.

    Weights count when they are registered: torch has reserved their memory by then, but not filled it.
    """
    found = [0, 0]
    thread = get_ident()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or get_ident() != thread:
            return
        found[0] += 1
        found[1] += tensor.numel()
        if found[0] > tensors or found[1] > values:
            raise ValueError(
                f"the network must have at most {tensors:,} tensors with {values:,} numbers in all, which "
                f"fit here; {type(module).__name__} exceeds that: take a smaller width, depth or shape"
            )

    hooks = [
        nn.modules.module.register_module_parameter_registration_hook(count),
        nn.modules.module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def at_most_stored(tensors: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """A block that builds modules for these tensors, `at_most` a few times their number and size.

    A module may build something that it throws away.
    """
    values = sum(tensor.numel() for tensor in tensors.values())
    return at_most(4 * len(tensors) + 100, 4 * values + 10**6)
