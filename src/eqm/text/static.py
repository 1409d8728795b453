"""Static word vectors of the package wordllama: 32,000 pieces of words, 256 numbers each (MIT)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from eqm.naming import shortened
from eqm.registry import register
from eqm.tensor_files import read_tensors


@dataclass(frozen=True, eq=False)
class StaticVectors:
    """Tokens that are pieces of words, each with a fixed vector."""

    name: str
    tokenizer: Any
    """A `tokenizers.Tokenizer`."""
    table: Tensor
    """The vectors, (size, width)."""
    fingerprint: str
    words: tuple[str, ...] = ()
    longest: int = 0
    _places: dict[Any, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of pieces."""
        return len(self.table)

    @property
    def width(self) -> int:
        """The length of a vector."""
        return self.table.shape[1]

    def split(self, sentence: str, length: int) -> tuple[list[int], str]:
        """The first `length` pieces of a sentence, and what is left out."""
        if not sentence:
            return [], ""
        found = self.tokenizer.encode(sentence, add_special_tokens=False)
        if len(found.ids) <= length:
            return found.ids, ""
        end = sentence[: found.offsets[length - 1][1]]
        return found.ids[:length], (
            f"only the first {length} tokens are used, which end in {shortened(end)}"
        )

    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens (B, L), (B, L, width)."""
        device = tokens.device
        if device not in self._places:  # once for each device
            self._places[device] = self.table.to(device)
        return F.embedding(tokens.clamp(max=self.size - 1), self._places[device])


@register("text-encoder", "wordllama")
def open_wordllama(name: str, captions: Sequence[str] = ()) -> StaticVectors:
    """The vectors and the tokenizer in the package wordllama. Raises ValueError if it is not installed."""
    if name != "wordllama":
        raise ValueError(f"wordllama takes no argument; got {name}: use wordllama")
    found = find_spec("wordllama")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise ValueError("the text encoder wordllama needs a package: pip install 'eqm[words]'")
    folder = Path(next(iter(found.submodule_search_locations)))
    weights = folder / "weights" / "l2_supercat_256.safetensors"
    settings = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
    advice = "install wordllama 0.4 again"
    if not settings.is_file():
        raise ValueError(f"there is no {settings}: {advice}")
    tensors = read_tensors(weights, advice=advice)
    tokenizer = Tokenizer.from_file(str(settings))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    table = next(iter(tensors.values())).float()
    digest = hashlib.sha256(settings.read_bytes() + table.numpy().tobytes()).hexdigest()[:16]
    return StaticVectors(name, tokenizer, table, digest)
