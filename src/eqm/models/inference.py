"""A trained model prepared for sampling: frozen, in bfloat16, compiled."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eqm.checks import check_kind
from eqm.energy import Energy
from eqm.field import Field
from eqm.models.network import Network


class Frozen(nn.Module):
    """A model that cannot be trained, made by `for_inference`; the gradient has the dtype of x.

    It has the model's `.config` and `.metadata`, so everything that samples a model takes it.
    """

    def __init__(
        self, model: nn.Module, *, bfloat16: bool, compiled: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.model = model
        self.config: Any = getattr(model, "config", None)
        self.metadata: dict[str, Any] = getattr(model, "metadata", {})
        self._in_bfloat16 = bfloat16
        self.dtype = dtype
        """The dtype of x: the model's before its matrices were converted."""
        self.fixed_shapes = compiled
        """Whether to keep one batch size, because every new size is compiled again."""
        self._field = _compiled(model) if compiled else model

    @torch.no_grad()
    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        """The gradient at x, with the shape and dtype of x, without a graph."""
        given = (x, labels) if gamma is None else (x, labels, gamma)
        with self.in_precision():
            return self._field(*given).to(x.dtype)

    def in_precision(self) -> AbstractContextManager[object]:
        """A context in which a network computes in the precision of this one."""
        device = next(self.model.parameters(), torch.empty(0)).device
        return torch.autocast(device.type, torch.bfloat16) if self._in_bfloat16 else nullcontext()


def for_inference(
    model: nn.Module,
    *,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compile: bool = False,
) -> Frozen:
    """A frozen copy of the model for sampling, optionally in bfloat16 and compiled.

    bfloat16 converts the matrices once; norms, sums and the result keep the model's precision. It
    changes a sample by about 1 % of its distance from the noise. "auto" takes bfloat16 on CUDA for
    float32 weights, and otherwise the precision of the weights. With `compile` the first evaluation
    of each batch size takes up to a minute: `stream(fixed=True)` keeps one size.

    Raises ValueError for another precision, and for bfloat16 if the weights are float64 or float16.

    >>> from eqm.models import MLPConfig, build
    >>> for_inference(build(MLPConfig()), precision="bfloat16")(torch.zeros(1, 2)).dtype
    torch.float32
    """
    check_kind(nn.Module, model=model)
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be auto, float32 or bfloat16; got {precision!r}")
    weight = next(model.parameters(), torch.empty(0))
    able = weight.dtype in (torch.float32, torch.bfloat16)  # autocast ignores float64
    if precision == "bfloat16" and not able:
        raise ValueError(
            f"precision bfloat16 needs a model in float32; this one is in {weight.dtype}: "
            "pass model.float() or precision auto"
        )
    bfloat16 = precision == "bfloat16" or (
        precision == "auto" and able and weight.device.type == "cuda"
    )
    model = deepcopy(model).eval().requires_grad_(False)
    if bfloat16:
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.to(torch.bfloat16)
    return Frozen(model, bfloat16=bfloat16, compiled=compile, dtype=weight.dtype)


def _compiled(model: nn.Module) -> Field:
    return model.compiled() if isinstance(model, Network | Energy) else torch.compile(model)
