"""Rows of compressed arrays, chosen by number.

Shapes: B queries, P positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from motherlode.core.compressed_rows import entries_of
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
