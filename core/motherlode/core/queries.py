"""A batch of queries, in the four forms that a caller may hold them.

Shapes: B queries, F features, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True, eq=False)
class TextQueries:
    """Queries as texts."""

    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> TextQueries:
        """Queries start to stop, stop excluded."""
        return TextQueries(self.texts[start:stop])


@final
@dataclass(frozen=True, slots=True, eq=False)
class SparseQueries:
    """Queries as sparse features, in compressed rows.

    Attributes:
        indptr: int64 [B + 1], offsets of the rows, indptr[0] = 0.
        indices: int64 [nnz], feature ids below num_features, ascending within a row.
        values: float32 [nnz].
        num_features: F.
    """

    indptr: IntArray
    indices: IntArray
    values: FloatArray
    num_features: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def rows(self, start: int, stop: int) -> SparseQueries:
        """Queries start to stop, stop excluded; the arrays are views."""
        first, last = self.indptr[start], self.indptr[stop]
        return SparseQueries(
            self.indptr[start : stop + 1] - first,
            self.indices[first:last],
            self.values[first:last],
            self.num_features,
        )


@final
@dataclass(frozen=True, slots=True, eq=False)
class DenseQueries:
    """Queries as dense features: float32 [B, F]."""

    features_BF: FloatArray

    def __len__(self) -> int:
        return len(self.features_BF)

    def rows(self, start: int, stop: int) -> DenseQueries:
        """Queries start to stop, stop excluded; the array is a view."""
        return DenseQueries(self.features_BF[start:stop])


@final
@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingQueries:
    """Queries already encoded: float32 [B, D], as the bundle's encoder would give them."""

    embeddings_BD: FloatArray

    def __len__(self) -> int:
        return len(self.embeddings_BD)

    def rows(self, start: int, stop: int) -> EmbeddingQueries:
        """Queries start to stop, stop excluded; the array is a view."""
        return EmbeddingQueries(self.embeddings_BD[start:stop])


Features = SparseQueries | DenseQueries
ArrayQueries = Features | EmbeddingQueries
Queries = TextQueries | ArrayQueries


def concatenate(batches: Sequence[Queries]) -> Queries:
    """One batch of several batches of one kind, in order.

    Raises:
        TypeError: If the batches are of different kinds, or there is none.
    """
    if len({type(batch) for batch in batches}) != 1:
        raise TypeError("concatenate needs one or more batches of one kind")
    if len(batches) == 1:
        return batches[0]
    match batches[0]:
        case TextQueries():
            return TextQueries([text for b in batches for text in b.texts])  # type: ignore[union-attr]
        case SparseQueries():
            return _concatenate_sparse(batches)  # type: ignore[arg-type]
        case DenseQueries():
            return DenseQueries(np.concatenate([b.features_BF for b in batches]))  # type: ignore[union-attr]
        case EmbeddingQueries():
            return EmbeddingQueries(np.concatenate([b.embeddings_BD for b in batches]))  # type: ignore[union-attr]


def _concatenate_sparse(batches: Sequence[SparseQueries]) -> SparseQueries:
    lengths = np.concatenate([np.diff(b.indptr) for b in batches])
    indptr = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return SparseQueries(
        indptr,
        np.concatenate([b.indices for b in batches]),
        np.concatenate([b.values for b in batches]),
        batches[0].num_features,
    )
