"""Random numbers as a function of seed, purpose and position, so that no random state is saved."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

_LOW = 0xFFFF_FFFF


def generator_at(purpose: str, *, seed: int, position: int) -> Generator:
    """The CPU generator for one position of a run, such as an epoch.

    torch's CPU generator uses only 32 bits of its seed: a hash of `purpose` and `seed`, plus `position`.
    So the generators of 2^32 positions of a run all differ.

    >>> a, b = (generator_at("order", seed=s, position=7).initial_seed() for s in (0, 1))
    >>> a != b
    True
    """
    return Generator().manual_seed((_key(purpose, seed)[0] + position) % 2**32)


@dataclass(frozen=True)
class SampleRandom:
    """The random numbers of B samples, a function of seed, purpose and the sample's position.

    They do not depend on the batch, the device or the number of processes. `positions` (B,) int64 are
    the indices of the samples in a run; the numbers are made on their device.

    >>> both = SampleRandom(0, torch.tensor([5, 6])).normal("noise", (2,))
    >>> torch.equal(SampleRandom(0, torch.tensor([6])).normal("noise", (2,)), both[1:])
    True
    """

    seed: int
    positions: Tensor

    def __getitem__(self, rows: slice) -> SampleRandom:
        """The random numbers of some of the samples."""
        return SampleRandom(self.seed, self.positions[rows])

    def uniform(self, purpose: str, shape: Sequence[int] = ()) -> Tensor:
        """Uniform on [0, 1), (B, *shape), float32."""
        words = self._words(purpose, math.prod(shape)) >> 8
        return (words.float() * 2**-24).view(len(self.positions), *shape)

    def normal(self, purpose: str, shape: Sequence[int] = ()) -> Tensor:
        """Standard normal, (B, *shape), float32, by the Box-Muller transform."""
        size = math.prod(shape)
        words = self._words(purpose, 2 * -(-size // 2)) >> 8  # float32 has 24 bits
        first, second = ((words.float() + 0.5) * 2**-24).chunk(2, dim=1)
        radius, angle = (-2 * first.log()).sqrt(), 2 * math.pi * second
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return both[:, :size].reshape(len(self.positions), *shape)

    def _words(self, purpose: str, count: int) -> Tensor:
        """Words of 32 random bits as int64, (B, count)."""
        blocks = torch.arange(-(-count // 4), device=self.positions.device)
        position = self.positions[:, None]
        counter = (blocks, blocks.new_zeros(()), position & _LOW, position >> 32)
        words = philox(counter, _key(purpose, self.seed))
        shape = (len(position), len(blocks))
        return torch.cat([word.expand(shape) for word in words], dim=1)[:, :count]


def philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four words of 32 random bits from four words of a counter, by Philox4x32-10.

    Words are int64 in 0..2^32-1 and broadcast. Salmon et al., Parallel random numbers: as easy as
    1, 2, 3 (SC 2011).
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        # the product may overflow int64, but its bits are right
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (
            ((second >> 32) & _LOW) ^ b ^ low,
            second & _LOW,
            ((first >> 32) & _LOW) ^ d ^ high,
            first & _LOW,
        )
        low, high = (low + 0x9E3779B9) & _LOW, (high + 0xBB67AE85) & _LOW
    return a, b, c, d


def _key(purpose: str, seed: int) -> tuple[int, int]:
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return int.from_bytes(digest[:4]), int.from_bytes(digest[4:8])
