"""Word n-grams of normalised texts.

Shapes: B texts, N n-grams found in all.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import final

import numpy as np

from motherlode.core.features.hashing import ALL_BITS, HashArray, HashTable
from motherlode.core.queries import IntArray

# `\w` alone lacks the combining marks, and would cut Hindi and Thai words at their vowel signs.
# Those beyond U+FFFF belong to a few rare scripts, and would make the pattern twice as slow.
_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")
_WORD = re.compile(rf"[\w{_MARKS}]+")
# Words that a finder remembers: what is most frequent is among the first that come.
_MOST_MET = 1 << 14


def word_ngrams(text: str, low: int, high: int) -> list[str]:
    """Runs of low to high words, in order by length; the words of a run are joined by a space.

    A word is a run of letters, digits, underscores and combining marks. Scripts written without
    spaces give one word for a whole phrase: character n-grams suit them better.
    """
    words: list[str] = _WORD.findall(text)
    if low == high == 1:
        return words
    runs = (zip(*(words[i:] for i in range(n)), strict=False) for n in range(low, high + 1))
    return [" ".join(run) for run in chain.from_iterable(runs)]


@final
class WordCounter:
    """In how many texts each word n-gram of low to high words stands."""

    def __init__(self, low: int, high: int) -> None:
        self._sizes = (low, high)
        self._counts: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        """Counts normalised texts."""
        self._counts.update(chain.from_iterable(set(word_ngrams(t, *self._sizes)) for t in texts))

    def frequencies(self, min_count: int) -> tuple[list[str], IntArray]:
        """The n-grams of at least min_count texts in no order, and int64 their numbers of texts."""
        kept = {ngram: count for ngram, count in self._counts.items() if count >= min_count}
        return list(kept), np.fromiter(kept.values(), np.int64, len(kept))


@final
class WordFinder:
    """Finds known word n-grams in texts; safe to use from several threads.

    They are known by Python's hashes of them, which are of this process: a dictionary of strings
    would take several times the memory, and keep Python's lock while it grows and when it goes.
    Only of those that single texts had, the first ones are kept in one.

    Args:
        low: Least words.
        high: Most words.
        ngrams: N, distinct.
        ids: int64 [N], the feature of each.
    """

    def __init__(self, low: int, high: int, ngrams: Iterable[str], ids: IntArray) -> None:
        self._sizes = (low, high)
        self._table = HashTable(_hashes(ngrams, len(ids)))
        self._ids = ids
        self._met: dict[str, int] = {}

    def find(self, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
        """Where known n-grams stand.

        Args:
            texts: Normalised texts.

        Returns:
            int64 [N], ascending, the text of each; int64 [N], its feature id.
        """
        ngrams = [word_ngrams(text, *self._sizes) for text in texts]
        counts = np.fromiter(map(len, ngrams), np.int64, len(ngrams))
        places = self._table.find(_hashes(chain.from_iterable(ngrams), int(counts.sum())))
        known = places >= 0
        return np.repeat(np.arange(len(texts)), counts)[known], self._ids[places[known]]

    def find_one(self, text: str) -> list[int]:
        """Feature ids of the known n-grams of one normalised text, in no order."""
        ngrams = word_ngrams(text, *self._sizes)
        met = self._met
        found = [met[ngram] if ngram in met else self._look_up(ngram) for ngram in ngrams]
        return [i for i in found if i >= 0]

    def _look_up(self, ngram: str) -> int:
        places = self._table.find_each([hash(ngram) & ALL_BITS])
        found = int(self._ids[places[0]]) if places else -1
        if len(self._met) < _MOST_MET:
            self._met[ngram] = found
        return found


def _hashes(ngrams: Iterable[str], count: int) -> HashArray:
    return np.fromiter(map(hash, ngrams), np.int64, count).view(np.uint64)
