"""Rows of compressed arrays, chosen by number.

Shapes: B queries, P positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from motherlode.core.queries import DenseQueries, IntArray, SparseQueries, TextQueries
from motherlode.core.records import RecordQueries


@final
@dataclass(frozen=True, slots=True, eq=False)
class PositiveRows:
    """The positives of queries, in compressed rows.

    Attributes:
        indptr: int64 [B + 1], offsets of the queries, indptr[0] = 0.
        indices: int64 [P], rows of the label table, ascending and distinct within a query.
    """

    indptr: IntArray
    indices: IntArray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def counts(self, num_labels: int) -> IntArray:
        """int64 [num_labels]: queries each label is a positive of."""
        return np.bincount(self.indices, minlength=num_labels).astype(np.int64)

    def rows(self, chosen: IntArray) -> PositiveRows:
        """The positives of the chosen queries, in the given order."""
        indptr, entries = entries_of(self.indptr, chosen)
        return PositiveRows(indptr, self.indices[entries])


def entries_of(indptr: IntArray, chosen: IntArray) -> tuple[IntArray, IntArray]:
    """The offsets of the chosen rows, put together, and the old places of their entries.

    Args:
        indptr: int64 [B + 1].
        chosen: int64 [C], row numbers in any order.

    Returns:
        int64 [C + 1] and int64 [entries].
    """
    starts = indptr[chosen]
    lengths = indptr[chosen + 1] - starts
    offsets = offsets_of(lengths)
    return offsets, np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def offsets_of(lengths: IntArray) -> IntArray:
    """int64 [B + 1]: where each of B rows of these lengths begins, and the last ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def take_queries(queries: RecordQueries, chosen: IntArray) -> RecordQueries:
    """The chosen queries, in the given order."""
    match queries:
        case TextQueries(texts):
            return TextQueries([texts[row] for row in chosen.tolist()])
        case DenseQueries(features_BF):
            return DenseQueries(features_BF[chosen])
        case SparseQueries(indptr, indices, values, num_features):
            offsets, entries = entries_of(indptr, chosen)
            return SparseQueries(offsets, indices[entries], values[entries], num_features)
