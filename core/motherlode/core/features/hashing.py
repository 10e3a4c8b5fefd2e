"""Short strings as 64-bit numbers, and a table from such numbers to ids, both in whole arrays.

A Python dictionary of 300,000 strings misses the processor's caches at nearly every look-up, one
after another; arrays overlap the misses and are several times as fast for many look-ups at once.
For a few look-ups the calls into NumPy cost more than the work, so both can be done one by one too.
(A dictionary would be faster there, but each of its strings is an object: they would be most of a
version's memory, and what is left between those of old and new versions grows with every reload.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import IntArray

HashArray = NDArray[np.uint64]
CodeArray = NDArray[np.uint32]

_SEED_NUMBER = 0x2545F4914F6CDD1D
_MULTIPLIER_NUMBER = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, as Knuth advises
ALL_BITS = (1 << 64) - 1
_SEED = np.uint64(_SEED_NUMBER)
_MULTIPLIER = np.uint64(_MULTIPLIER_NUMBER)
_HALF = np.uint64(32)
_PART = 1 << 14
_NEXT = np.arange(1, 9)


def code_points(text: str) -> CodeArray:
    """uint32 code points of a text without surrogates; read-only."""
    return np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))


def window_hashes(codes_P: CodeArray, longest: int) -> Iterator[HashArray]:
    """Hashes of the windows of 1, 2, ... longest characters.

    Args:
        codes_P: uint32 [P + longest], the characters, and as many of any kind behind them.
        longest: The last length.

    Yields:
        uint64 [P], for each position the hash of the window that starts there.
    """
    num_windows = len(codes_P) - longest
    hashes = np.empty(num_windows, np.uint64)
    hashes.fill(_SEED)
    for i in range(longest):
        hashes = _mix(hashes, codes_P[i : i + num_windows])
        yield hashes


def hash_strings(strings: Sequence[str]) -> HashArray:
    """uint64 [N]: the hash of each string, as its window would have it."""
    # In parts, so that a column of strings is never all objects at once.
    parts = [_hash_part(list(strings[i : i + _PART])) for i in range(0, len(strings), _PART)]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _hash_part(strings: list[str]) -> HashArray:
    codes = code_points("".join(strings))
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    starts = np.cumsum(lengths) - lengths
    hashes = np.full(len(strings), _SEED, np.uint64)
    for i in range(int(lengths.max(initial=0))):
        longer = lengths > i
        hashes[longer] = _mix(hashes[longer], codes[starts[longer] + i])
    return hashes


def ngram_hashes(word: str, low: int, high: int) -> Iterator[int]:
    """Hashes of the windows of low to high characters of one word, each as `window_hashes` has it.

    A word shorter than low characters has one window, itself.
    """
    codes = [ord(character) for character in word]
    low = min(low, len(codes))
    for start in range(len(codes) - low + 1):
        value = _SEED_NUMBER
        for length, code in enumerate(codes[start : start + high], 1):
            value = (value ^ code) * _MULTIPLIER_NUMBER & ALL_BITS
            value ^= value >> 32
            if length >= low:
                yield value


def _mix(hashes: HashArray, codes: CodeArray) -> HashArray:
    mixed = (hashes ^ codes) * _MULTIPLIER
    return mixed ^ (mixed >> _HALF)


@final
class HashTable:
    """Ids of known hashes, by open addressing with linear probing.

    Two strings share a hash with a probability of 2**-64; the table then takes one for the other.

    Args:
        hashes: uint64 [F]; the id of a hash is its position, of several equal ones any.
    """

    def __init__(self, hashes: HashArray) -> None:
        # Between a sixth and a third full: most look-ups end at their first slot.
        num_bits = max((3 * len(hashes)).bit_length(), 1)
        self._shift = np.uint64(64 - num_bits)
        self._mask = (1 << num_bits) - 1
        self._hashes = np.zeros(1 << num_bits, np.uint64)
        self._ids = np.full(1 << num_bits, -1, np.int64)
        self._fill(hashes)
        # Items of a memoryview are plain numbers, and read several times faster than NumPy's.
        self._hash_items = self._hashes.data
        self._id_items = self._ids.data

    def find_each(self, hashes: Iterable[int]) -> list[int]:
        """The ids of the known ones of a few hashes, in order."""
        shift, mask = int(self._shift), self._mask
        stored, ids = self._hash_items, self._id_items
        found = []
        for value in hashes:
            slot = value >> shift
            while (known := ids[slot]) >= 0:
                if stored[slot] == value:
                    found.append(known)
                    break
                slot = (slot + 1) & mask
        return found

    def find(self, hashes: HashArray) -> IntArray:
        """int64 [N]: the id of each hash, or -1 for an unknown one."""
        slots = (hashes >> self._shift).astype(np.int64)
        ids = self._ids[slots]
        other = self._hashes[slots] != hashes
        pending = (other & (ids >= 0)).nonzero()[0]
        ids[other] = -1
        slots = slots[pending, None]
        while len(pending):
            # Several slots at once, as a call into NumPy costs more than looking at a few in vain.
            slots = (slots[:, -1:] + _NEXT) & self._mask
            found, same = self._ids[slots], self._hashes[slots] == hashes[pending, None]
            ids[pending] = np.where(same, found, -1).max(axis=1)
            further = ((found >= 0) & ~same).all(axis=1)
            pending, slots = pending[further], slots[further]
        return ids

    def _fill(self, hashes: HashArray) -> None:
        pending = np.arange(len(hashes))
        slots = (hashes >> self._shift).astype(np.int64)
        while len(pending):
            free = self._ids[slots] < 0
            self._ids[slots[free]] = pending[free]  # of several claims to one slot the last stays
            placed = self._ids[slots] == pending
            pending = pending[~placed]
            slots = (slots[~placed] + 1) & self._mask
        taken = self._ids >= 0
        self._hashes[taken] = hashes[self._ids[taken]]
