"""Random numbers as a function of where they are needed, so that nothing has to be saved."""

from __future__ import annotations

import hashlib

from torch import Generator


def generator_at(purpose: str, *, seed: int, position: int) -> Generator:
    """The CPU generator of one place in a run, such as an epoch or a number of images seen.

    torch's CPU generator heeds 32 bits of its seed, no more: `purpose` and `seed` are hashed to
    them and `position` is added, so that within a run no two of 2^32 positions are the same.

    >>> a, b = (generator_at("noise", seed=s, position=7).initial_seed() for s in (0, 1))
    >>> a != b
    True
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return Generator().manual_seed((int.from_bytes(digest[:4]) + position) % 2**32)
