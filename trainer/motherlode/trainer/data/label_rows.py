"""From the label keys of records to rows of a label table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, count
from typing import final

import numpy as np

from motherlode.core.compressed_rows import offsets_of
from motherlode.core.labels import LabelTable
from motherlode.core.queries import IntArray
from motherlode.trainer.data.rows import PositiveRows


@final
class LabelRows:
    """Collects the labels of queries as numbers.

    Keys of the table have its rows; keys that it lacks get the numbers after them, in the order
    they come.

    Args:
        labels: The table, or None to begin without any.
    """

    def __init__(self, labels: LabelTable | None) -> None:
        keys: Iterable[str] = () if labels is None else labels.keys
        self._num_known = 0 if labels is None else len(labels)
        # A missing key costs one call of C code; a known one a plain look-up.
        self._rows: defaultdict[str, int] = defaultdict(
            count(self._num_known).__next__, {key: row for row, key in enumerate(keys)}
        )
        self._lengths: list[IntArray] = []
        self._indices: list[IntArray] = []

    def add(self, labels: Sequence[list[str]]) -> None:
        """Appends queries, each with its label keys."""
        lengths = np.fromiter(map(len, labels), np.int64, len(labels))
        indices = map(self._rows.__getitem__, chain.from_iterable(labels))
        self._lengths.append(lengths)
        self._indices.append(np.fromiter(indices, np.int64, int(lengths.sum())))

    @property
    def num_new(self) -> int:
        """Distinct keys that the table lacks."""
        return len(self._rows) - self._num_known

    def is_new(self, key: str) -> bool:
        """Whether a key that was added is not in the table."""
        return self._rows[key] >= self._num_known

    def settle_new(self) -> LabelTable:
        """A table of the known and, after them, the new keys, sorted; all become known.

        Keys are sorted as numbers if all are written as such, else as text.
        """
        keys = list(self._rows)
        new = keys[self._num_known :]
        ordered = sorted(new, key=int) if all(map(_is_number, new)) else sorted(new)
        keys[self._num_known :] = ordered
        place = {key: row for row, key in enumerate(keys)}
        renumbered = np.fromiter((place[key] for key in self._rows), np.int64, len(keys))
        self._indices = [renumbered[indices] for indices in self._indices]
        self._rows.update(place)
        self._num_known = len(keys)
        return LabelTable(keys, None, np.zeros(len(keys), np.int64))

    def positives(self) -> tuple[PositiveRows, IntArray]:
        """The known labels of all queries, and the number of each query's distinct labels."""
        lengths = np.concatenate(self._lengths)
        queries, labels = _distinct(
            np.repeat(np.arange(len(lengths)), lengths), np.concatenate(self._indices)
        )
        num_true = np.bincount(queries, minlength=len(lengths)).astype(np.int64)
        is_known = labels < self._num_known
        num_known = np.bincount(queries[is_known], minlength=len(lengths))
        return PositiveRows(offsets_of(num_known), labels[is_known]), num_true


def _distinct(queries: IntArray, labels: IntArray) -> tuple[IntArray, IntArray]:
    """The pairs in order of query, then label, each once."""
    order = np.lexsort((labels, queries))
    queries, labels = queries[order], labels[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(queries) != 0) | (np.diff(labels) != 0)
    return queries[is_first], labels[is_first]


def _is_number(key: str) -> bool:
    # "07" and "7" are two keys, and one number would not tell which comes first.
    return key.isascii() and key.isdecimal() and (key == "0" or key[0] != "0") and len(key) < 19
