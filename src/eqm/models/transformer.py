"""The transformer of the paper, with the layer names of the released weights."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.models.axes import by_axis, convolution, position_table, rotary_table, rotated
from eqm.models.conditioning import LabelEmbedding, NoiseEmbedding
from eqm.models.config import TransformerConfig
from eqm.models.network import Network
from eqm.models.words import TokenAttention, TokenEmbedding
from eqm.registry import register


@register("network", "transformer")
class Transformer(Network):
    """A field on signals, images, latents or volumes: a vision transformer conditioned by adaptive layer norm.

    Every block starts as the identity and the output starts at zero (adaLN-Zero of DiT, arXiv
    2212.09748, as in arXiv 2510.02300). Parameters have the official names, shapes and
    initialisation, but the output has the opposite sign: load released weights with
    `eqm.models.official.load`. Every operation can be differentiated twice under the math kernel
    of `torch.nn.attention.sdpa_kernel`.

    `rotary`, `rms_norm`, `qk_norm` and `swiglu` of the config replace parts of the blocks, as in
    LightningDiT (arXiv 2501.01423). Without them the network is that of the paper.
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        channels, *sides = config.shape
        self._patch = by_axis(config.patch, len(sides))
        self._grid = tuple(n // size for n, size in zip(sides, self._patch, strict=True))
        outputs = 2 * channels if config.unused_outputs else channels

        self.x_embedder = PatchEmbedding(channels, self._patch, config.width)
        self.pos_embed = nn.Parameter(position_table(self._grid, config.width), requires_grad=False)
        self.rotary: nn.Parameter | None = None
        if config.rotary:
            table = rotary_table(self._grid, config.width // config.heads)
            self.rotary = nn.Parameter(table, requires_grad=False)
        self.t_embedder = NoiseEmbedding(config.width)
        self.y_embedder: LabelEmbedding | TokenEmbedding | None = None
        if config.text.encoder:
            self.y_embedder = TokenEmbedding(config, config.width)
        elif config.num_classes:
            self.y_embedder = LabelEmbedding(config.num_classes, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config, prod(self._patch) * outputs)
        self._initialise()

    def forward(
        self, x: Tensor, labels: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        self.check(x, labels, gamma)
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, D)
        # One row instead of B if all samples share the condition.
        condition = self.t_embedder(x.new_zeros(1) if gamma is None else gamma)
        words: tuple[Tensor, ...] = ()
        if isinstance(self.y_embedder, TokenEmbedding):
            *words, mean = self.y_embedder(labels)
            condition = condition + mean
        elif self.y_embedder is not None:
            condition = condition + self.y_embedder(labels)
        condition = F.silu(condition)[:, None]  # (B or 1, 1, D)
        for block in self.blocks:
            tokens = self.through(block, tokens, condition, self.rotary, *words)
        return self._unpatch(self.final_layer(tokens, condition))

    def repeated_blocks(self) -> list[nn.Module]:
        return list(self.blocks)

    def outer_layers(self) -> list[nn.Module]:
        layers = (self.x_embedder, self.t_embedder, self.y_embedder, self.final_layer)
        return [layer for layer in layers if layer is not None]

    def _unpatch(self, tokens: Tensor) -> Tensor:
        axes = len(self._grid)
        values = tokens.unflatten(2, (*self._patch, -1)).unflatten(1, self._grid)
        values = values[..., : self.config.shape[0]]  # (B, *grid, *patch, C); others are unused
        pairs = [axis for k in range(1, axes + 1) for axis in (k, k + axes)]
        return values.permute(0, 2 * axes + 1, *pairs).reshape(-1, *self.config.shape)

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if ".words." in name or (name.startswith("y_embedder") and self.config.text.encoder):
                continue  # they have begun
            if name.endswith(".bias") or "adaLN" in name or name == "final_layer.linear.weight":
                nn.init.zeros_(parameter)
            elif name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(parameter, std=0.02)
            elif name not in ("pos_embed", "rotary") and parameter.ndim > 1:  # scales are 1
                nn.init.xavier_uniform_(parameter.detach().flatten(1))  # a view, so in place


class PatchEmbedding(nn.Module):
    """One token for each patch of an image, row by row, (B, N, D)."""

    def __init__(self, channels: int, patch: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.proj = convolution(len(patch), channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention on tokens (B, N, D).

    With QK norm, queries and keys are at most as long as their largest learned scale times
    sqrt(D / heads).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if config.qk_norm:
            self.q_scale = nn.Parameter(torch.ones(width // self.heads))
            self.k_scale = nn.Parameter(torch.ones(width // self.heads))
        self._qk_norm = config.qk_norm

    def forward(self, tokens: Tensor, rotary: Tensor | None = None) -> Tensor:
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (B, heads, N, D / heads)
        if self._qk_norm:
            q, k = over_rms(q) * self.q_scale, over_rms(k) * self.k_scale
        if rotary is not None:
            q, k = rotated(q, rotary), rotated(k, rotary)
        h = attend(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(h.transpose(1, 2).flatten(2))


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


class SwiGLU(nn.Module):
    """A two-layer MLP on each token, (B, N, D), whose hidden features have gates (arXiv 2002.05202).

    It has two thirds of `hidden` such features, and so about as many parameters as a `Perceptron`.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = max(round(hidden * 2 / 3), 1)
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        gate, h = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * h)


class RMSNorm(nn.Module):
    """Tokens over their root mean square, without weights."""

    def forward(self, tokens: Tensor) -> Tensor:
        return over_rms(tokens)


def over_rms(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6), the mean over the last axis, in float32 or better.

    Unlike torch's kernel it can be differentiated twice in every way.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-6)
    return (exact * scale).to(x.dtype)


class Block(nn.Module):
    """Attention, then an MLP, on tokens (B, N, D); the condition shifts, scales and gates both.

    With sentences, the tokens attend to the words between the two.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = _norm(config)
        self.attn = Attention(config)
        self.norm2 = _norm(config)
        perceptron = SwiGLU if config.swiglu else Perceptron
        self.mlp = perceptron(width, round(width * config.mlp_ratio))
        self.adaLN_modulation = _modulation(width, 6)
        if config.text.encoder:
            self.words = TokenAttention(width, width, config.heads)

    def forward(
        self, tokens: Tensor, condition: Tensor, rotary: Tensor | None = None, *words: Tensor
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, 2)
        h = self.attn(torch.addcmul(shift1, self.norm1(tokens), 1 + scale1), rotary)
        tokens = torch.addcmul(tokens, gate1, h)
        if words:
            tokens = tokens + self.words(tokens, *words)
        h = self.mlp(torch.addcmul(shift2, self.norm2(tokens), 1 + scale2))
        return torch.addcmul(tokens, gate2, h)


class FinalLayer(nn.Module):
    """The pixels of each token's patch, (B, N, patch * patch * channels)."""

    def __init__(self, config: TransformerConfig, outputs: int) -> None:
        super().__init__()
        width = config.width
        self.norm_final = _norm(config)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, 2)
        return self.linear(torch.addcmul(shift, self.norm_final(tokens), 1 + scale))


def _norm(config: TransformerConfig) -> nn.Module:
    if config.rms_norm:
        return RMSNorm()
    return nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=False)


def _modulation(width: int, parts: int) -> nn.Sequential:
    # Number 1, as in the released models: number 0, the activation, is applied once for all blocks.
    return nn.Sequential(OrderedDict({"1": nn.Linear(width, parts * width)}))
