"""Weights of the official implementation, github.com/raywang4/EqM."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqm.models.config import PRESETS, TransformerConfig
from eqm.models.pretrained import clean_name, load_weights
from eqm.models.transformer import Transformer
from eqm.schema import shown
from eqm.tensor_files import read_tensors


def load(
    weights: str | os.PathLike[str] | Mapping[str, Any], *, num_heads: int | None = None
) -> Transformer:
    """The transformer with a copy of official weights, in eval mode on the CPU.

    `weights` is a state dict, an official checkpoint (its EMA is used), or the path of either as
    .pt or .safetensors. Sizes come from the tensors and dtypes are kept. The number of heads is not
    in the tensors: by default it is that of the preset with the same width. Official networks point
    from noise to data, so the last layer is negated.
    A .pt file may hold tensors and plain options only: a pickle that would run code is refused.
    Raises ValueError for a missing, damaged or refused file and for other weights.
    """
    source = "the state dict" if isinstance(weights, Mapping) else os.fspath(weights)
    content = weights if isinstance(weights, Mapping) else _read(Path(weights))
    tensors = _state_dict(content, source)
    config = _config(tensors, source, num_heads)
    for name in ("final_layer.linear.weight", "final_layer.linear.bias"):
        if name in tensors:
            tensors[name] = -tensors[name]
    network = load_weights(config, tensors, source)
    assert isinstance(network, Transformer)
    return network.eval()


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(
            f"expected a .pt or .safetensors file; {path} does not exist or is no file"
        )
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped if possible: that skips the optimizer's state, twice as large as the weights.
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # a damaged pickle can fail anywhere
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ValueError(
                f"{path} must hold tensors and plain options only; it was refused, because "
                "loading it could run code: save its state dict instead"
            ) from None
        raise ValueError(
            f"{path} must be a complete file of weights; it is damaged: download it again"
        ) from error


def _state_dict(content: Any, source: str) -> dict[str, Tensor]:
    for part in ("ema", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(part), Mapping):
            content = content[part]
    if not isinstance(content, Mapping) or not all(
        isinstance(tensor, Tensor) for tensor in content.values()
    ):
        raise ValueError(
            f"{source} must hold a state dict, or a checkpoint with one under ema or model; "
            f"got {type(content).__name__}"
        )
    for name, tensor in content.items():
        plain = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
        # A tensor may be a view that repeats a few numbers: a copy would be as large as it says.
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{source} must hold whole tensors; {shown(str(name))} is none")
    return {clean_name(str(name)): tensor.detach().clone() for name, tensor in content.items()}


def _config(tensors: Mapping[str, Tensor], source: str, num_heads: int | None) -> TransformerConfig:
    try:
        width, channels, patch, _ = tensors["x_embedder.proj.weight"].shape
        tokens = tensors["pos_embed"].shape[1]
        rows = tensors["y_embedder.embedding_table.weight"].shape[0]
        hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        outputs = tensors["final_layer.linear.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"{source} must hold the weights of an official EqM transformer; it does not "
            f"({error} is missing or of another shape)"
        ) from None
    side = patch * round(tokens**0.5)
    blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
    if num_heads is None:
        heads = {p.width: p.heads for p in PRESETS.values() if isinstance(p, TransformerConfig)}
        if width not in heads:
            raise ValueError(
                f"num_heads must be given for width {width}, which no preset has "
                f"(they have {', '.join(map(str, heads))})"
            )
        num_heads = heads[width]
    try:
        return TransformerConfig(
            shape=(channels, side, side),
            num_classes=rows - 1,
            patch=patch,
            width=width,
            depth=len(blocks),
            heads=num_heads,
            mlp_ratio=hidden / max(width, 1),
            unused_outputs=outputs == 2 * patch**2 * channels,
        )
    except ValueError as error:
        raise ValueError(
            f"{source} must hold the weights of an official EqM transformer; {error}"
        ) from None
