"""Sentences in a network: vectors of their tokens, and attention to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqm.models.config import NetworkConfig
from eqm.text.encoder import opened


class Sentences(NamedTuple):
    """B sentences, or one for all samples (B = 1), as a network sees them."""

    vectors: Tensor
    """Of an empty place and of each token, (B, 1 + L, W)."""
    present: Tensor
    """Whether there is a token, (B, 1 + L); the empty place is always there."""
    mean: Tensor
    """The mean of the vectors that are present, (B, W)."""


class TokenEmbedding(nn.Module):
    """`Sentences` of tokens (B, L), whose number `num_classes` stands for no token.

    The vectors are trained, or those of a frozen text encoder after a trained layer. A trained vector of
    the place is added, then the tokens see each other in `config.text.depth` layers of attention. What
    fills the end of a sentence changes nothing. Without tokens, and for `tokens=None`, one trained vector
    is left, the condition of the empty sentence.
    """

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        text = config.text
        self.text, self.size = text, config.num_classes
        self.empty = nn.Parameter(torch.randn(width) * 0.02)
        self.places = nn.Parameter(torch.randn(text.length, width) * 0.02)
        if text.width:
            self.project = nn.Linear(text.width, width)
        else:
            self.embedding_table = nn.Embedding(config.num_classes, width)
            nn.init.normal_(self.embedding_table.weight, std=0.02)
        self.layers = nn.ModuleList(TokenLayer(width) for _ in range(text.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, tokens: Tensor | None) -> Sentences:
        if tokens is None:
            tokens = torch.full((1, 0), self.size, device=self.empty.device)
        if tokens.ndim == 1:
            tokens = tokens[:, None]
        present = tokens != self.size
        h = self._vectors(tokens, present) + self.places[: tokens.shape[1]]
        h = torch.cat([self.empty.expand(len(h), 1, -1), h], dim=1)  # (B, 1 + L, W)
        present = F.pad(present, (1, 0), value=True)
        for layer in self.layers:
            h = layer(h, present)
        h = self.norm(h)
        share = present.to(h.dtype) / present.sum(1, keepdim=True)
        return Sentences(h, present, (share[:, None] @ h)[:, 0])

    def _vectors(self, tokens: Tensor, present: Tensor) -> Tensor:
        if not self.text.width:
            return self.embedding_table(tokens.where(present, 0))
        if not tokens.numel():
            return self.empty.new_zeros(*tokens.shape, len(self.empty))
        frozen = opened(self.text.encoder, self.text.fingerprint).vectors(tokens)
        frozen = frozen.to(self.empty).masked_fill(~present[..., None], 0)
        return self.project(frozen)


class TokenLayer(nn.Module):
    """Attention between tokens (B, N, W), then an MLP; each starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = TokenAttention(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        tokens = tokens + self.attention(tokens, self.attention.norm(tokens), present)
        return tokens + self.fc2(F.silu(self.fc1(self.norm(tokens))))


class TokenAttention(nn.Module):
    """Attention of x (B, N, C) to vectors (B, L, W) where they are `present` (B, L); zero at first."""

    def __init__(self, width: int, words: int, heads: int = 0) -> None:
        super().__init__()
        self.heads = heads or next(n for n in (4, 2, 1) if width % n == 0)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(words, 2 * width)
        self.proj = nn.Linear(width, width)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, vectors: Tensor, present: Tensor) -> Tensor:
        q = self.q(self.norm(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        kv = self.kv(vectors).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        k, v = kv.expand(-1, len(x), -1, -1, -1).unbind()  # each (B, heads, L, C / heads)
        mask = present[:, None, None].expand(len(x), 1, q.shape[2], -1)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(h.transpose(1, 2).flatten(2))
