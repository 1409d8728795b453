"""Frozen text models through transformers: CLIP, T5, MiniLM and the like, from a folder or the Hub."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqm.naming import shortened
from eqm.registry import register

KEPT = 256 << 20
"""Bytes of vectors of sentences that are kept, so that each sentence is encoded once for all steps."""


@dataclass(frozen=True, eq=False)
class FrozenText:
    """A tokenizer and a text model; its last hidden states are the vectors of tokens."""

    name: str
    tokenizer: Any
    module: nn.Module
    width: int
    longest: int
    fingerprint: str
    words: tuple[str, ...] = ()
    _known: OrderedDict[tuple[int, ...], Tensor] = field(default_factory=OrderedDict)
    """The vectors of sentences, the last used at the end."""
    _held: list[int] = field(default_factory=lambda: [0])
    """The number of their tokens."""

    @property
    def size(self) -> int:
        """The number of tokens of the tokenizer."""
        return len(self.tokenizer)

    def split(self, sentence: str, length: int) -> tuple[list[int], str]:
        """The tokens of a sentence, at most `length` with those of its start and end, and what is left out."""
        if not sentence:
            return [], ""
        whole = self.tokenizer(sentence, verbose=False)["input_ids"]
        if len(whole) <= length:
            return list(whole), ""
        cut = self.tokenizer(sentence, truncation=True, max_length=length)["input_ids"]
        end = self.tokenizer.decode(cut, skip_special_tokens=True)
        return list(cut), (
            f"only the first {length} tokens are used, which end in {shortened(end)}"
        )

    @torch.no_grad()
    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens (B, L), (B, L, width), zero where there is no token."""
        return torch.compiler.disable(self._vectors)(tokens)

    def _vectors(self, tokens: Tensor) -> Tensor:
        rows = [tuple(n for n in row if n != self.size) for row in tokens.tolist()]
        found = torch.zeros(*tokens.shape, self.width, device=tokens.device)
        for place, row in enumerate(rows):
            if row:
                found[place, : len(row)] = self._of(row).to(tokens.device)
        return found

    def _of(self, row: tuple[int, ...]) -> Tensor:
        """The vectors of one sentence, (L, width), alone, so that they do not depend on others."""
        if row not in self._known:
            ids = torch.tensor([row])
            with torch.autocast("cpu", enabled=False):
                states = self.module(input_ids=ids, attention_mask=torch.ones_like(ids))
            self._known[row] = states.last_hidden_state[0].float()
            self._held[0] += len(row)
            while self._held[0] * self.width * 4 > KEPT and len(self._known) > 1:
                self._held[0] -= len(self._known.popitem(last=False)[0])
        self._known.move_to_end(row)
        return self._known[row]


@register("text-encoder", "transformers")
def open_transformers(name: str, captions: Sequence[str] = ()) -> FrozenText:
    """The tokenizer and the text model in a folder, or of a name on the Hugging Face Hub.

    Of a model with other parts, such as CLIP or T5, only the encoder of text is used. Weights are read
    from safetensors alone, and no code of the folder runs. Raises ValueError for a missing or damaged
    folder, one without a tokenizer, and a model without a text encoder.
    """
    where = name.partition(":")[2]
    if not where:
        raise ValueError(
            f"transformers must be given as transformers:FOLDER or transformers:OWNER/NAME; got {name}"
        )
    try:
        import transformers
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as error:
        raise ValueError(
            "the text encoder transformers needs a package: pip install 'eqm[words]'"
        ) from error
    folder = Path(where)
    if folder.is_dir():
        _check_files(folder)
    elif set(where) & set("\\") or where.count("/") != 1 or where.startswith((".", "/", "~")):
        raise ValueError(f"there is no folder {where}: check its name")
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        kind = _encoder_class(config)
        module = kind.from_pretrained(where, use_safetensors=True)
    except Exception as error:  # transformers raises errors of several libraries
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"the text encoder {where} cannot be opened ({reason}): save or download it again"
        ) from error
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
    module = module.float().eval().requires_grad_(False)
    text = getattr(module.config, "text_config", module.config)
    width = int(getattr(text, "hidden_size", 0) or getattr(text, "d_model", 0))
    longest = int(getattr(text, "max_position_embeddings", 0) or 0)
    known = getattr(tokenizer, "model_max_length", 0)
    longest = min(n for n in (longest, known, 1 << 20) if n)
    sha = hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode())
    for key, weight in sorted(module.state_dict().items()):
        sha.update(key.encode() + weight.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return FrozenText(name, tokenizer, module, width, longest % (1 << 20), sha.hexdigest()[:16])


def _check_files(folder: Path) -> None:
    """Raises ValueError for a folder that lacks what `from_pretrained` needs."""
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise ValueError(f"{folder} holds no config.json: save the text model with save_pretrained")
    tokenizers = {"tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model"}
    if not names & tokenizers:
        raise ValueError(
            f"{folder} holds no tokenizer (tokenizer.json): save it there too, with tokenizer.save_pretrained"
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise ValueError(
            f"{folder} holds no weights as .safetensors: save the text model with save_pretrained"
        )


def _encoder_class(config: Any) -> Any:
    """The class of the encoder of text of a model with this config."""
    import transformers

    kinds = {
        "clip": "CLIPTextModel",
        "clip_text_model": "CLIPTextModel",
        "siglip": "SiglipTextModel",
        "siglip_text_model": "SiglipTextModel",
        "t5": "T5EncoderModel",
        "umt5": "UMT5EncoderModel",
        "mt5": "MT5EncoderModel",
    }
    return getattr(transformers, kinds.get(config.model_type, "AutoModel"))
