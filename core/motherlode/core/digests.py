"""Digests of long data, made such that others on the same processor need not wait for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

_BLOCK_BYTES = 1 << 18


class Digest(Protocol):
    """What takes bytes in, such as those of hashlib."""

    def update(self, data: memoryview, /) -> object:
        """Takes in more."""


def take_in(digest: Digest, data: memoryview) -> None:
    """Updates a digest with bytes, and gives way after every quarter of a mebibyte."""
    flat = data.cast("B")
    for start in range(0, len(flat), _BLOCK_BYTES):
        digest.update(flat[start : start + _BLOCK_BYTES])
        # Linux lets a thread that computes without a pause finish a slice of some milliseconds
        # before another that woke meanwhile, whatever their priorities: a server's calls would
        # wait for the hashes of a version that it loads.
        os.sched_yield()


def take_in_file(digest: Digest, path: Path) -> None:
    """As `take_in`, with the bytes of a file.

    Raises:
        OSError: If it cannot be read.
    """
    block = memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while num_bytes := file.readinto(block):
            take_in(digest, block[:num_bytes])
