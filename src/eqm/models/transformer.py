"""The transformer of the paper, with the layer names of the released weights."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.models.conditioning import LabelEmbedding, NoiseEmbedding
from eqm.models.config import TransformerConfig
from eqm.models.network import Network
from eqm.registry import register


@register("network", "transformer")
class Transformer(Network):
    """A field on images or latents: a vision transformer conditioned by adaptive layer norm.

    Every block starts as the identity and the output starts at zero (adaLN-Zero of DiT, arXiv
    2212.09748, as in arXiv 2510.02300). Parameters have the official names, shapes and
    initialisation, but the output has the opposite sign: load released weights with
    `eqm.models.official.load`. Every operation can be differentiated twice under the math kernel
    of `torch.nn.attention.sdpa_kernel`.
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        channels, height, width = config.shape
        grid = (height // config.patch, width // config.patch)
        outputs = 2 * channels if config.unused_outputs else channels

        self.x_embedder = PatchEmbedding(channels, config.patch, config.width)
        self.pos_embed = nn.Parameter(position_table(*grid, config.width), requires_grad=False)
        self.t_embedder = NoiseEmbedding(config.width)
        self.y_embedder = (
            LabelEmbedding(config.num_classes, config.width) if config.num_classes else None
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.patch**2 * outputs)
        self._initialise()

    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        self.check(x, labels, gamma)
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, D)
        # One row instead of B if all samples share the condition.
        condition = self.t_embedder(x.new_zeros(1) if gamma is None else gamma)
        if self.y_embedder is not None:
            condition = condition + self.y_embedder(labels)
        condition = F.silu(condition)[:, None]  # (B or 1, 1, D)
        for block in self.blocks:
            tokens = self.through(block, tokens, condition)
        return self._unpatch(self.final_layer(tokens, condition))

    def repeated_blocks(self) -> list[nn.Module]:
        return list(self.blocks)

    def outer_layers(self) -> list[nn.Module]:
        layers = (self.x_embedder, self.t_embedder, self.y_embedder, self.final_layer)
        return [layer for layer in layers if layer is not None]

    def _unpatch(self, tokens: Tensor) -> Tensor:
        channels, height, width = self.config.shape
        p = self.config.patch
        pixels = tokens.unflatten(2, (p, p, -1)).unflatten(1, (height // p, width // p))
        pixels = pixels[..., :channels]  # (B, H/p, W/p, p, p, C); others are unused
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith(".bias") or "adaLN" in name or name == "final_layer.linear.weight":
                nn.init.zeros_(parameter)
            elif name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(parameter, std=0.02)
            elif name != "pos_embed":
                nn.init.xavier_uniform_(parameter.detach().flatten(1))  # a view, so in place


class PatchEmbedding(nn.Module):
    """One token for each patch of an image, row by row, (B, N, D)."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention on tokens (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (B, heads, N, D / heads)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, (B, heads, N, D).

    It uses torch's fused kernels, except to train in bfloat16 on a CPU, where the backward pass of
    plain matrix products is faster.
    """
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and torch.is_grad_enabled():
        return torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Perceptron(nn.Module):
    """A two-layer MLP on each token, (B, N, D)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens), approximate="tanh"))


class Block(nn.Module):
    """Attention, then an MLP, on tokens (B, N, D); the condition shifts, scales and gates both."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = _norm(width)
        self.attn = Attention(width, config.heads)
        self.norm2 = _norm(width)
        self.mlp = Perceptron(width, round(width * config.mlp_ratio))
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, 2)
        h = self.attn(torch.addcmul(shift1, self.norm1(tokens), 1 + scale1))
        tokens = torch.addcmul(tokens, gate1, h)
        h = self.mlp(torch.addcmul(shift2, self.norm2(tokens), 1 + scale2))
        return torch.addcmul(tokens, gate2, h)


class FinalLayer(nn.Module):
    """The pixels of each token's patch, (B, N, patch * patch * channels)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = _norm(width)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, 2)
        return self.linear(torch.addcmul(shift, self.norm_final(tokens), 1 + scale))


def position_table(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of the column, then of the row, of each token, (1, rows * columns, width)."""
    quarter = width // 4
    frequencies = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)

    def waves(count: int) -> Tensor:
        angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (count, width / 2)

    by_column = waves(columns).expand(rows, -1, -1)
    by_row = waves(rows)[:, None].expand(-1, columns, -1)
    table = torch.cat([by_column, by_row], dim=2).reshape(1, rows * columns, width)
    return table.to(torch.get_default_dtype())


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulation(width: int, parts: int) -> nn.Sequential:
    # Number 1, as in the released models: number 0, the activation, is applied once for all blocks.
    return nn.Sequential(OrderedDict({"1": nn.Linear(width, parts * width)}))
