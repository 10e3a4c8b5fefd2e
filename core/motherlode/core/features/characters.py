"""Character n-grams of normalised texts, inside words.

Each word of a text (a run without white space) is padded with a space on both sides; its n-grams
are all its windows of n characters. A padded word shorter than the shortest n-gram is one n-gram.
Each distinct word of a batch is cut up once, all in whole arrays.

Shapes: B texts, T words in all, W distinct words, P characters of the distinct words with their
padding, S sizes of n-grams, H characters of the longest, N n-grams in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import final

import numpy as np

from motherlode.core.features.hashing import (
    HashArray,
    HashTable,
    code_points,
    hash_strings,
    ngram_hashes,
    window_hashes,
)
from motherlode.core.queries import IntArray

_COMPACT_AT = 1 << 22


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Words:
    """Which distinct words stand in which text.

    Attributes:
        distinct: The W distinct words in the order they appeared.
        rows: int64 [T], ascending, the text of each word.
        words: int64 [T], its position in distinct.
    """

    distinct: list[str]
    rows: IntArray
    words: IntArray

    def spread(self, counts_W: IntArray, items: IntArray) -> tuple[IntArray, IntArray]:
        """Items of the distinct words, given to every text in which the word stands.

        Args:
            counts_W: int64 [W], how many items each distinct word has.
            items: The items of word 0, then those of word 1 ...

        Returns:
            int64 [N], ascending, the text; int64 [N], the item.
        """
        counts_T = counts_W[self.words]
        starts_T = counts_T.cumsum() - counts_T
        starts_W = counts_W.cumsum() - counts_W
        positions = (starts_W[self.words] - starts_T).repeat(counts_T)
        positions += np.arange(len(positions))
        return self.rows.repeat(counts_T), items[positions]


def _split(texts: Sequence[str]) -> _Words:
    split = [text.split() for text in texts]
    counts = np.fromiter(map(len, split), np.int64, len(split))
    distinct = dict(zip(dict.fromkeys(chain.from_iterable(split)), count(), strict=False))
    words = map(distinct.__getitem__, chain.from_iterable(split))
    return _Words(
        list(distinct),
        np.arange(len(split)).repeat(counts),
        np.fromiter(words, np.int64, int(counts.sum())),
    )


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """The n-grams of words, those of word 0 first.

    Attributes:
        text: The padded words, one behind the other.
        hashes: uint64 [N].
        words: int64 [N], ascending, the word of each.
        places: int64 [N], where each begins in text, times S, plus the position of its size.
        lengths_W: int64 [W], characters of each padded word.
        sizes_S: The sizes of n-grams.
    """

    text: str
    hashes: HashArray
    words: IntArray
    places: IntArray
    lengths_W: IntArray
    sizes_S: range

    def locate(self, which: IntArray) -> tuple[IntArray, IntArray]:
        """Where some n-grams begin in text, and how many characters they have; both int64."""
        starts, columns = np.divmod(self.places[which], len(self.sizes_S))
        sizes = columns + self.sizes_S.start
        return starts, np.minimum(sizes, self.lengths_W[self.words[which]])


def _windows(words: Sequence[str], low: int, high: int) -> _Windows:
    text = f" {'  '.join(words)} " if words else ""
    lengths_W = np.fromiter(map(len, words), np.int64, len(words)) + 2
    words_P = np.arange(len(words)).repeat(lengths_W)
    stops_W = lengths_W.cumsum()
    left_P = stops_W[words_P] - np.arange(len(text))
    hashes_HP = list(window_hashes(code_points(text + " " * high), high))
    sizes_S = range(low, high + 1)
    hashes_PS = np.empty((len(text), len(sizes_S)), np.uint64)
    inside_PS = np.empty(hashes_PS.shape, np.bool_)
    for column, size in enumerate(sizes_S):
        hashes_PS[:, column] = hashes_HP[size - 1]
        np.greater_equal(left_P, size, out=inside_PS[:, column])
    for size in range(3, low):  # a short word whole: no window of it is in the first column
        whole = (stops_W - lengths_W)[lengths_W == size]
        hashes_PS[whole, 0] = hashes_HP[size - 1][whole]
        inside_PS[whole, 0] = True
    places = inside_PS.ravel().nonzero()[0]
    words_N = words_P[places // len(sizes_S)]
    return _Windows(text, hashes_PS.ravel()[places], words_N, places, lengths_W, sizes_S)


@final
class CharacterFinder:
    """Finds known character n-grams in texts; safe to use from several threads.

    Args:
        low: Characters of the shortest n-grams.
        high: Characters of the longest n-grams.
        ngrams: The known n-grams.
        ids: int64, the feature id of each.
    """

    def __init__(self, low: int, high: int, ngrams: Sequence[str], ids: IntArray) -> None:
        self._sizes = (low, high)
        self._table = HashTable(hash_strings(ngrams))
        self._ids = ids

    def find(self, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
        """Where known n-grams stand.

        Args:
            texts: Normalised texts.

        Returns:
            int64 [N], ascending, the text of each; int64 [N], its feature id.
        """
        words = _split(texts)
        windows = _windows(words.distinct, *self._sizes)
        found = self._table.find(windows.hashes)
        known = found >= 0
        counts_W = np.bincount(windows.words[known], minlength=len(words.distinct))
        return words.spread(counts_W, self._ids[found[known]])

    def find_one(self, text: str) -> list[int]:
        """Feature ids of the known n-grams of one normalised text, in no order."""
        hashes = (ngram_hashes(f" {word} ", *self._sizes) for word in text.split())
        ids: list[int] = self._ids[self._table.find_each(chain.from_iterable(hashes))].tolist()
        return ids


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Distinct n-grams.

    Attributes:
        hashes: uint64 [N].
        counts: int64 [N], texts that have the n-gram.
        starts: int64 [N], where it stands in the counter's texts.
        sizes: int64 [N], its characters.
    """

    hashes: HashArray
    counts: IntArray
    starts: IntArray
    sizes: IntArray


_NO_COUNTS = _Counts(
    np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
)


@final
class CharacterCounter:
    """In how many texts each character n-gram of low to high characters stands."""

    def __init__(self, low: int, high: int) -> None:
        self._sizes = (low, high)
        self._texts: list[str] = []
        self._num_characters = 0
        self._parts: list[_Counts] = []
        self._compact_at = _COMPACT_AT

    def add(self, texts: Sequence[str]) -> None:
        """Counts normalised texts; many at a time are faster."""
        words = _split(texts)
        windows = _windows(words.distinct, *self._sizes)
        hashes, first, ngrams = np.unique(windows.hashes, return_index=True, return_inverse=True)
        counts_W = np.bincount(windows.words, minlength=len(words.distinct))
        counts = _count_rows(*words.spread(counts_W, ngrams), len(hashes))
        starts, sizes = windows.locate(first)
        part = _Counts(hashes, counts, starts + self._num_characters, sizes)
        self._texts.append(windows.text)
        self._num_characters += len(windows.text)
        self._parts.append(part)
        if sum(len(part.hashes) for part in self._parts) > self._compact_at:
            self._compact_at = _COMPACT_AT + 2 * len(self._compact().hashes)

    def frequencies(self, min_count: int) -> tuple[list[str], IntArray]:
        """The n-grams of at least min_count texts in no order, and int64 their numbers of texts."""
        every = self._compact()
        kept = every.counts >= min_count
        text = "".join(self._texts)
        starts, stops = every.starts[kept], (every.starts + every.sizes)[kept]
        ngrams = [text[i:j] for i, j in zip(starts.tolist(), stops.tolist(), strict=True)]
        return ngrams, every.counts[kept]

    def _compact(self) -> _Counts:
        parts = self._parts or [_NO_COUNTS]
        hashes, first, ngrams = np.unique(
            np.concatenate([part.hashes for part in parts]), return_index=True, return_inverse=True
        )
        # Sums in float64 are exact to 2**53 texts.
        counts = np.bincount(ngrams, np.concatenate([part.counts for part in parts]))
        starts = np.concatenate([part.starts for part in parts])[first]
        sizes = np.concatenate([part.sizes for part in parts])[first]
        self._parts = [_Counts(hashes, counts.astype(np.int64), starts, sizes)]
        return self._parts[0]


def _count_rows(rows: IntArray, ngrams: IntArray, num_ngrams: int) -> IntArray:
    """int64 [num_ngrams]: the distinct rows of each n-gram."""
    keys = rows * num_ngrams + ngrams
    keys.sort()
    distinct = keys[np.diff(keys, prepend=-1) != 0]
    return np.bincount(distinct % max(num_ngrams, 1), minlength=num_ngrams)
