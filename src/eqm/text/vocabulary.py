"""A small vocabulary: the words of the captions, whose vectors are trained with the network."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from torch import Tensor

from eqm.checks import kind_of
from eqm.naming import said, shortened
from eqm.registry import register

MOST_WORDS = 32_768
"""A vocabulary has at most so many words, the most frequent ones."""
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]"  # Japanese and Chinese have no spaces between words
    r"|[^\W_]+(?:['’][^\W_]+)*"
    r"|[^\w\s!-/:-@\[-`{-~‐-⁞]"  # a sign such as an emoji, but no punctuation
)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens that are whole words, in any case; other words are left out of a sentence."""

    words: tuple[str, ...]

    name = "vocabulary"
    width = longest = 0

    def __post_init__(self) -> None:
        if not 0 < len(self.words) <= MOST_WORDS or len(set(self.words)) < len(self.words):
            raise ValueError(
                f"a vocabulary must have 1 to {MOST_WORDS:,} different words; got {len(self.words):,}: give captions"
            )

    @cached_property
    def fingerprint(self) -> str:
        """A hexadecimal digest of the words."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """The number of words."""
        return len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def split(self, sentence: str, length: int) -> tuple[list[int], str]:
        """The numbers of the first `length` known words of a sentence, and what is left out."""
        found = words_of(sentence)
        unknown = [word for word in dict.fromkeys(found) if word not in self._numbers]
        known = [word for word in found if word in self._numbers]
        rest = [f"unknown words are left out: {said(unknown)}"] if unknown else []
        if len(known) > length:
            rest.append(
                f"only the first {length} words are used, the last is {shortened(known[length - 1])}"
            )
        return [self._numbers[word] for word in known[:length]], ", and ".join(rest)

    def vectors(self, tokens: Tensor) -> NoReturn:
        """A vocabulary has no vectors of its own."""
        raise ValueError(
            "the vectors of a vocabulary are weights of the network: it has none itself"
        )


@register("text-encoder", "vocabulary")
def make_vocabulary(name: str, captions: Sequence[str]) -> Vocabulary:
    """The vocabulary of captions: their words, the most frequent first.

    Raises ValueError without any word."""
    if name != "vocabulary":
        raise ValueError(f"vocabulary takes no argument; got {name}: use vocabulary")
    counts: Counter[str] = Counter()
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(f"captions must be text; got {kind_of(caption)}")
        counts.update(words_of(caption))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    if not ordered:
        raise ValueError("a vocabulary is made of captions; got none with a word: add captions")
    return Vocabulary(tuple(ordered[:MOST_WORDS]))


def words_of(sentence: str) -> list[str]:
    """The words of a sentence in lower case, without punctuation.

    >>> words_of("A cat's hat, RED!")
    ['a', "cat's", 'hat', 'red']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", sentence).casefold())
