"""The interface of a text encoder, its metadata, and sentences as rows of tokens."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypedDict

import torch
from torch import Tensor

from eqm.checks import kind_of
from eqm.files import printable
from eqm.registry import lookup
from eqm.schema import convert, shown

LOG = logging.getLogger("eqm.data.text")
MOST_LETTERS = 100_000
"""A sentence has at most so many letters."""


class TextEncoder(Protocol):
    """Splits sentences into tokens. A frozen one also has a vector for each token.

    Register a function `make(name, captions)` by `@eqm.register("text-encoder", KIND)`. `name` is KIND or
    KIND:ARGUMENT. `captions` are the sentences of the training data; they are empty where a trained
    model is used.
    """

    @property
    def name(self) -> str:
        """The name that `open_text` takes."""

    @property
    def fingerprint(self) -> str:
        """A hexadecimal digest of tokens and vectors; it does not depend on the folder."""

    @property
    def size(self) -> int:
        """Tokens have the numbers 0 to size - 1. `size` itself fills the end of short sentences."""

    @property
    def width(self) -> int:
        """Length of the vector of a token; 0 if the vectors are trained with the network."""

    @property
    def longest(self) -> int:
        """The most tokens that it takes; 0 for any number."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are stored with the weights of a model; () if another package has them."""

    def split(self, sentence: str, length: int) -> tuple[list[int], str]:
        """The first `length` tokens of a sentence, and what of it is left out, in words: often nothing."""

    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors (B, L, width) of tokens (B, L) where `width` is not 0; those of `size` may be anything."""


class AboutText(TypedDict):
    """What the metadata of a model say of its text encoder."""

    encoder: str
    fingerprint: str
    words: NotRequired[list[str]]


_OPENED: dict[str, TextEncoder] = {}
"""By fingerprint, what the user has opened."""


def open_text(name: str, captions: Sequence[str] = ()) -> TextEncoder:
    """The text encoder called `name`: KIND or KIND:ARGUMENT.

    * `vocabulary`: the words of `captions`; their vectors are trained with the network
    * `wordllama`: 32,000 pieces of words with fixed vectors of 256 numbers (package `wordllama`)
    * `transformers:FOLDER`, or `transformers:OWNER/NAME` on the Hugging Face Hub: a frozen text model such
      as CLIP's, T5 or MiniLM (package `transformers`)

    Raises ValueError for an unknown kind, a missing package, and a missing or damaged folder.
    """
    if not isinstance(name, str):
        raise ValueError(f"a text encoder has a name, such as 'vocabulary'; got {kind_of(name)}")
    found: TextEncoder = lookup("text-encoder", name.partition(":")[0])(name, captions)
    _OPENED[found.fingerprint] = found
    return found


def about_text(encoder: TextEncoder) -> AboutText:
    """What is stored of an encoder with the weights of a model."""
    about = AboutText(encoder=encoder.name, fingerprint=encoder.fingerprint)
    return {**about, "words": list(encoder.words)} if encoder.words else about


def text_of(metadata: Mapping[str, Any]) -> TextEncoder:
    """The text encoder of a model with this `metadata`.

    The metadata may come from anybody. So a folder or a name on the Hub that they give is not opened:
    call `open_text` with it before, if you trust it. Raises ValueError if that was not done, and for a
    model without a text encoder.
    """
    from eqm.text.vocabulary import Vocabulary

    data = metadata.get("data")
    stored = data.get("text") if isinstance(data, Mapping) else None
    found: AboutText | None = convert(stored, AboutText | None, "the model's ", name="data.text")
    if found is None:
        raise ValueError(
            "the model's metadata do not say its text encoder (data.text): train it by eqm.train, or pass tokens"
        )
    if "words" in found:
        return Vocabulary(tuple(found["words"]))
    return opened(found["encoder"], found["fingerprint"])


def opened(name: str, fingerprint: str) -> TextEncoder:
    """The encoder with this fingerprint, if the user has opened it or if it comes with a package.

    Raises ValueError if not.
    """
    if fingerprint not in _OPENED and ":" not in name:
        open_text(name)
    if fingerprint in _OPENED:
        return _OPENED[fingerprint]
    if ":" in name:
        raise ValueError(
            f"the model takes words by the text encoder {printable(name)} ({fingerprint}): open it first, with "
            f"--text {printable(name)} or eqm.text.open_text, if you trust it"
        )
    raise ValueError(
        f"the model needs the text encoder {printable(name)} with the fingerprint {fingerprint}; the one of the "
        "installed package is another: install the version that the model was trained with"
    )


def tokens_of(encoder: TextEncoder, sentences: Sequence[str], length: int) -> Tensor:
    """The tokens of each sentence, (N, length) int64; `encoder.size` fills the rest of a row.

    A row of an empty sentence has no tokens. Sentences that are too long are cut, and words that the
    encoder does not know are left out; both are logged as warnings. Raises ValueError for what is no
    text.
    """
    rows = torch.full((len(sentences), length), encoder.size, dtype=torch.int64)
    lost: list[tuple[str, str]] = []
    for row, sentence in zip(rows, sentences, strict=True):
        tokens, rest = encoder.split(checked(sentence), length)
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        if rest:
            lost.append((sentence, rest))
    if lost:
        sentence, rest = lost[0]
        more = "" if len(lost) == 1 else f" (and of {len(lost) - 1:,} other sentences)"
        LOG.warning("of the sentence %s %s%s", shown(sentence), rest, more)
    return rows


def checked(sentence: object) -> str:
    """The sentence in one line. Raises ValueError for what is no text."""
    if not isinstance(sentence, str):
        raise ValueError(f"a prompt must be text; got {kind_of(sentence)}")
    if len(sentence) > MOST_LETTERS:
        raise ValueError(
            f"a prompt must have at most {MOST_LETTERS:,} letters; got {len(sentence):,}: shorten it"
        )
    try:
        sentence.encode()
    except UnicodeEncodeError:
        raise ValueError("a prompt must be text in Unicode; it has half a surrogate pair") from None
    return re.sub(r"\s+", " ", sentence).strip()
