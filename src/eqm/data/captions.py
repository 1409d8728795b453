"""Sentences of samples: captions, and their tokens as the labels of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor

from eqm.checks import check_count, kind_of
from eqm.data.caption_files import Captions
from eqm.data.source import Source, digest, notes_of, say, subset_of
from eqm.naming import counted
from eqm.randomness import SampleRandom
from eqm.text import TextEncoder, about_text, tokens_of


@dataclass(frozen=True, eq=False)
class Captioned:
    """The samples of `source` with their sentences."""

    source: Source
    captions: Captions
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the source."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.source.shape

    @property
    def labels(self) -> Tensor | None:
        """The classes of the source, or None."""
        return self.source.labels

    @property
    def num_classes(self) -> int:
        """The number of classes of the source."""
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes of the source."""
        return getattr(self.source, "class_names", ())

    @property
    def in_memory(self) -> bool:
        """Whether a batch needs no file."""
        return bool(getattr(self.source, "in_memory", False))

    @property
    def processes(self) -> int:
        """How many worker processes load batches."""
        return getattr(self.source, "processes", 0)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is stored with the weights of a model of this data."""
        return getattr(self.source, "metadata", {})

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the source's fingerprint and the captions."""
        return digest(self.source.fingerprint, self.captions)

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The samples at `rows` (B,), (B, *shape)."""
        return self.source.batch(rows, random)

    def subset(
        self, rows: Tensor, labels: Tensor | None, num_classes: int, class_names: tuple[str, ...]
    ) -> Captioned:
        """The samples at `rows` with their sentences and other labels."""
        source = subset_of(self.source, rows, labels, class_names, num_classes)
        return replace(
            self, source=source, captions=tuple(self.captions[row] for row in rows.tolist())
        )


def with_captions(source: Source, captions: Sequence[str | Sequence[str]]) -> Captioned:
    """The samples of a source with a sentence each, or with several each.

    Raises ValueError for another number of captions than samples, and for captions that are no text.

    >>> from eqm.data import as_source
    >>> with_captions(as_source(torch.rand(2, 1, 8, 8)), ["a cat", ["a dog", "a pet"]]).captions
    (('a cat',), ('a dog', 'a pet'))
    """
    if isinstance(captions, str) or not isinstance(captions, Iterable):
        raise ValueError(f"captions must be one for each sample; got {kind_of(captions)}")
    rows: list[tuple[str, ...]] = []
    for caption in captions:
        some = (caption,) if isinstance(caption, str) else caption
        if not isinstance(some, list | tuple) or not all(isinstance(each, str) for each in some):
            raise ValueError(f"a caption must be text, or several texts; got {kind_of(caption)}")
        rows.append(tuple(each for each in some if each.strip()))
    if len(rows) != len(source):
        raise ValueError(
            f"{source.name}: {len(source):,} samples need as many captions; got {len(rows):,}: give one for each"
        )
    return Captioned(source, tuple(rows), notes_of(source))


@dataclass(frozen=True, eq=False, kw_only=True)
class Worded(Captioned):
    """Captioned samples with the tokens of their sentences as labels."""

    text: TextEncoder
    """What splits sentences."""
    tokens: Tensor
    """The tokens of all sentences, (M, length) int32."""
    starts: Tensor
    """Where those of each sample begin, (N + 1,); a sample without any has one empty sentence."""

    @property
    def labels(self) -> Tensor:
        """The tokens of the first sentence of each sample, (N, length) int64."""
        return self.tokens[self.starts[:-1]].long()

    @property
    def num_classes(self) -> int:
        """The number of tokens of the text encoder, which also fills the end of a sentence."""
        return self.text.size

    @property
    def class_names(self) -> tuple[str, ...]:
        """Tokens are no classes."""
        return ()

    @property
    def metadata(self) -> dict[str, Any]:
        """What is stored with the weights of a model of this data, with its text encoder."""
        return {**super().metadata, "text": about_text(self.text)}

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the source's fingerprint, the captions and the text encoder's."""
        own = digest(self.source.fingerprint, self.captions)
        return digest(own, self.text.fingerprint, self.tokens.shape[1])

    def subset(
        self, rows: Tensor, labels: Tensor | None, num_classes: int, class_names: tuple[str, ...]
    ) -> Worded:
        """The samples at `rows` with their sentences."""
        some = Captioned(self.source, self.captions).subset(rows, None, 0, ())
        return worded(some, self.text, length=self.tokens.shape[1])

    def labels_at(self, rows: Tensor, random: SampleRandom) -> Tensor:
        """The tokens of one sentence of each sample at `rows`, (B, length) int64, drawn from all of its own."""
        first, count = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        if int(count.max()) == 1:
            return self.tokens[first].long()
        drawn = (random.uniform("caption") * count).long().clamp(max=count - 1)
        return self.tokens[first + drawn].long()


def worded(source: Source, text: TextEncoder, *, length: int = 32) -> Worded:
    """The captions of a source as tokens for training, at most `length` of each.

    Samples without a caption are trained with the empty sentence, which a note counts. Raises ValueError
    for a source without captions.
    """
    check_count(length=length)
    captions = captions_of(source)
    count = len(source)
    notes = []
    missing = sum(not some for some in captions)
    if missing == count:
        raise ValueError(
            f"{source.name} has no captions: add some, or train without a text encoder"
        )
    if missing:
        notes.append(
            f"{source.name}: {missing:,} of {counted(count, 'sample')} have no caption and are trained with the "
            "empty sentence"
        )
    say(notes)
    every = [some or ("",) for some in captions]
    return Worded(
        source.source if isinstance(source, Captioned) else source,
        captions,
        (*notes_of(source), *notes),
        text=text,
        tokens=tokens_of(text, list(chain.from_iterable(every)), length).int(),
        starts=torch.tensor([0, *accumulate(map(len, every))]),
    )


def captions_of(source: Source) -> Captions:
    """The captions of a source. Raises ValueError where it has none."""
    found: Captions | None = getattr(source, "captions", None)
    if found is None:
        raise ValueError(
            f"{source.name} has no captions: put a .txt beside each picture, or a metadata.csv with the columns "
            "file_name and text, or pass eqm.data.with_captions(source, sentences)"
        )
    return found
