"""DINOv2 and CLIP features, from a folder downloaded from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from eqm.features.features import Activations, Features, as_rgb, from_module
from eqm.registry import register
from eqm.schema import read_json

_TYPES = {"dinov2": ("dinov2", "dinov2_with_registers"), "clip": ("clip", "clip_vision_model")}
"""The model types in config.json."""
_MODES = {2: "bilinear", 3: "bicubic"}  # the resizing modes by Pillow's numbers


class Prepared(nn.Module):
    """A vision transformer with the preprocessing that its folder states.

    `output` names the field of the transformer's output that is returned. Images (B, C, H, W) in -1..1
    are resized to `side`, antialiased, and not cropped, so that a metric sees the whole sample.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, output: str, config: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.output = network, output
        self.side, self.mode = _side(config), _MODES[config.get("resample", 3)]
        for name in ("mean", "std"):
            values = torch.tensor(config[f"image_{name}"], dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, values)

    def forward(self, images: Tensor) -> Activations:
        """The features (B, D)."""
        if images.shape[2:] != self.side:
            images = functional.interpolate(
                images, self.side, mode=self.mode, antialias=True
            ).clamp(-1, 1)
        pixels = ((as_rgb(images) + 1) / 2 - self.mean) / self.std
        return Activations(getattr(self.network(pixel_values=pixels), self.output))


@register("features", "dinov2")
def open_dinov2(argument: str, device: torch.device) -> Features:
    """The class token of the DINOv2 in a folder after its last norm, as in FD-DINOv2 (arXiv 2306.04675)."""
    return _open("dinov2", argument, "AutoModel", "pooler_output", device)


@register("features", "clip")
def open_clip(argument: str, device: torch.device) -> Features:
    """The image embedding of the CLIP in a folder, projected and not normalised."""
    return _open("clip", argument, "CLIPVisionModelWithProjection", "image_embeds", device)


def _open(kind: str, folder: str, network: str, output: str, device: torch.device) -> Features:
    model_type = _read(Path(folder) / "config.json").get("model_type")
    if model_type not in _TYPES[kind]:
        raise ValueError(
            f"{folder} must hold a model of type {' or '.join(_TYPES[kind])}; its config.json says "
            f"{model_type}"
        )
    config = _read(Path(folder) / "preprocessor_config.json")
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise ValueError(f"{kind} needs transformers: pip install 'eqm[features]'") from error
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        module, report = getattr(transformers, network).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,  # pickles may run code
            local_files_only=True,
            output_loading_info=True,
        )
        prepared = Prepared(module.requires_grad_(False), output, config)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} must hold a complete {kind}: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{folder} lacks {len(missing)} tensors of its {kind}, such as {missing[0]}: "
            "download it again"
        )
    height, width = prepared.side
    return from_module(
        prepared.to(device),
        name=f"{kind}:{folder}",
        size=module.config.projection_dim if kind == "clip" else module.config.hidden_size,
        resize=f"{prepared.mode}, antialiased, to {height}x{width}, clipped; grey repeated",
        batch_size=32,
    )


def _side(config: dict[str, Any]) -> tuple[int, int]:
    """Height and width of the network's input: the crop size, or the resize size if there is no crop."""
    cropped = config.get("do_center_crop", "crop_size" in config)
    size = config["crop_size" if cropped else "size"]
    if isinstance(size, int):
        return size, size
    return (
        size.get("height", size.get("shortest_edge")),
        size.get("width", size.get("shortest_edge")),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path, dict[str, Any], advice="download it again")
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: give a folder that holds a model") from None
    return found
