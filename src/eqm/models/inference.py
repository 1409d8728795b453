"""A trained model made ready for descending: frozen, converted once, compiled."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eqm.energy import Energy
from eqm.field import Field
from eqm.models.network import Network


class Frozen(nn.Module):
    """The field of a model to descend, not to train: what it returns has the dtype of x.

    Made by `for_inference`. It has the `.config` and `.metadata` of the model, so that whatever
    samples a model samples it.
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
        """Of what it is given: that of the model before any matrix was converted."""
        self.fixed_shapes = compiled
        """Whether batches should keep one size, as every new one is compiled anew."""
        self._field = _compiled(model) if compiled else model

    @torch.no_grad()
    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        """The gradient at x, shape and dtype as x; no graph is kept."""
        given = (x, labels) if gamma is None else (x, labels, gamma)
        precision: AbstractContextManager[object] = (
            torch.autocast(x.device.type, torch.bfloat16) if self._in_bfloat16 else nullcontext()
        )
        with precision:
            return self._field(*given).to(x.dtype)


def for_inference(
    model: nn.Module,
    *,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compile: bool = False,
) -> Frozen:
    """A copy of the model made for descending: no graph, weights in bfloat16, compiled.

    In bfloat16 the matrices are converted once instead of at every evaluation; norms, sums and what
    comes out stay in the model's precision. It moves samples by about 1 % of the way they go. "auto"
    is bfloat16 on CUDA for weights in float32, else the precision of the weights. With `compile` the
    first evaluation takes up to a minute, and so does the first of every other batch size:
    `stream(fixed=True)` keeps one.

    Raises ValueError for another precision, and for bfloat16 of weights in float64 or float16.

    >>> from eqm.models import MLPConfig, build
    >>> for_inference(build(MLPConfig()), precision="bfloat16")(torch.zeros(1, 2)).dtype
    torch.float32
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be auto, float32 or bfloat16; got {precision!r}")
    weight = next(model.parameters(), torch.empty(0))
    able = weight.dtype in (torch.float32, torch.bfloat16)  # autocast leaves float64 as it is
    if precision == "bfloat16" and not able:
        raise ValueError(
            f"precision bfloat16 is for models in float32; this one is in {weight.dtype}: "
            "pass model.float(), or precision auto"
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
