"""The conditioning of a network on labels and, in an ablation, on the noise level gamma."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.checks import label_bounds
from eqm.models.config import NetworkConfig
from eqm.models.words import Sentences, TokenEmbedding


class LabelEmbedding(nn.Module):
    """One vector (width) for each label; the last row of the table is the null label's.

    Returns (B, width). `labels=None` is the null label for every sample and returns (1, width).
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            return self.embedding_table.weight[-1:]  # (1, width)
        return self.embedding_table(labels)  # (B, width)


class NoiseEmbedding(nn.Module):
    """One vector for each noise level gamma, (B, width): 128 cosines, 128 sines and an MLP.

    As in the released models, frequencies fall from 1 to 1/10000 and gamma is not rescaled.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, gamma: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        # In bfloat16 neighbouring noise levels would have the same angle.
        exact = torch.promote_types(dtype, torch.float32)
        steps = torch.arange(128, device=gamma.device, dtype=exact)
        angles = gamma.to(exact)[:, None] * torch.exp(steps * (-math.log(10_000) / 128))
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, 256)
        return self.mlp(waves.to(dtype))


class Conditioning(nn.Module):
    """The sum of label and noise embedding after a SiLU: (B, width), or (1, width) if all share it.

    An unconditional network has the null label only, a learned constant. A network of sentences has the
    mean of the vectors of a sentence in place of its label's.
    """

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.label: nn.Module
        if config.text.encoder:
            self.label = TokenEmbedding(config, width)
        else:
            self.label = LabelEmbedding(config.num_classes, width)
        self.noise = NoiseEmbedding(width) if config.noise_conditioning else None

    def sentences(self, labels: Tensor | None) -> Sentences | None:
        """The vectors of tokens; None for a network of classes."""
        return self.label(labels) if isinstance(self.label, TokenEmbedding) else None

    def forward(
        self, labels: Tensor | None, gamma: Tensor | None, words: Sentences | None = None
    ) -> Tensor:
        embedding: Tensor = self.label(labels) if words is None else words.mean
        if self.noise is not None:
            embedding = embedding + self.noise(gamma)
        return F.silu(embedding)


def check_inputs(
    x: Tensor, labels: Tensor | None, gamma: Tensor | None, config: NetworkConfig
) -> None:
    """Returns nothing; raises ValueError unless x, labels and gamma fit `config`.

    x is floating point with shape (B, *config.shape). labels are int32 or int64 with shape (B,), for a
    network of sentences (B, L), in 0..num_classes; num_classes is the null label. Their range is checked
    on the CPU only: on a GPU the check would wait for the device. gamma is floating point with shape (B,).
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point; got {x.dtype}: pass x.float()")
    if tuple(x.shape[1:]) != config.shape or x.ndim != len(config.shape) + 1:
        expected = ", ".join(("B", *map(str, config.shape)))
        raise ValueError(f"x must have shape ({expected}); got {tuple(x.shape)}")
    if labels is not None:
        _check_labels(labels, x, config)
    if gamma is None and config.noise_conditioning:
        raise ValueError("this network is noise-conditioned; got no gamma: pass gamma")
    if gamma is not None:
        if not config.noise_conditioning:
            raise ValueError(
                "this network is not noise-conditioned; got gamma: leave it out, "
                "or build the network with noise_conditioning=True"
            )
        if not gamma.is_floating_point():
            raise ValueError(f"gamma must be floating point; got {gamma.dtype}: pass gamma.float()")
        _check_one_each("gamma", "value", gamma, x)


def _check_labels(labels: Tensor, x: Tensor, config: NetworkConfig) -> None:
    num_classes = config.num_classes
    if num_classes == 0:
        raise ValueError(
            "this network is unconditional; got labels: leave them out, "
            "or build the network with num_classes"
        )
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be a tensor; got a {type(labels).__name__}: pass a tensor")
    if labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"labels must be int64 or int32; got {labels.dtype}: pass labels.long()")
    if config.text.encoder and labels.ndim == 2:
        if labels.shape[1] > config.text.length:
            raise ValueError(
                f"sentences must have at most {config.text.length} tokens; got labels {tuple(labels.shape)}"
            )
        _check_one_each("labels", "sentence", labels[:, :1].flatten(), x)
    else:
        _check_one_each("labels", "label", labels, x)
    bounds = label_bounds(labels)
    if bounds and not 0 <= bounds[0] <= bounds[1] <= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes} ({num_classes} is the null label); "
            f"got {bounds[0]}..{bounds[1]}"
        )


def _check_one_each(name: str, noun: str, values: Tensor, x: Tensor) -> None:
    if values.shape != x.shape[:1]:
        hint = f": pass {name}.flatten()" if values.numel() == len(x) else ""
        raise ValueError(
            f"{name} must have shape ({len(x)},), one {noun} a sample; "
            f"got {tuple(values.shape)}{hint}"
        )
    if values.device != x.device:
        raise ValueError(
            f"{name} must be on the device of x, {x.device}; got {values.device}: "
            f"pass {name}.to(x.device)"
        )
