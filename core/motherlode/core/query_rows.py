"""Rows of a batch that are asked, and answers to them as answers to the whole batch.

Shapes: B queries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import (
    ArrayQueries,
    DenseQueries,
    EmbeddingQueries,
    Features,
    SparseQueries,
)
from motherlode.core.topk import TopK

StillWanted = Callable[[], NDArray[np.bool_] | None]
"""Says, right before a search, which queries anybody still waits for: bool [B], None for all."""


def drop_empty_rows(features: Features) -> tuple[Features, NDArray[np.bool_] | None]:
    """The rows with a feature, and bool [B] which they are, or None if they all have one."""
    if not isinstance(features, SparseQueries):
        return features, None
    known_B = features.indptr[1:] > features.indptr[:-1]
    if known_B.all():
        return features, None
    # An empty row holds no part of the other arrays, so that they stay as they are.
    indptr = np.concatenate([features.indptr[:1], features.indptr[1:][known_B]])
    kept = SparseQueries(indptr, features.indices, features.values, features.num_features)
    return kept, known_B


def rows_of(queries: ArrayQueries, kept_B: NDArray[np.bool_]) -> ArrayQueries:
    """The rows that are kept."""
    if isinstance(queries, EmbeddingQueries):
        return EmbeddingQueries(queries.embeddings_BD[kept_B])
    if isinstance(queries, DenseQueries):
        return DenseQueries(queries.features_BF[kept_B])
    lengths_B = np.diff(queries.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths_B[kept_B])])
    kept = np.repeat(kept_B, lengths_B)
    return SparseQueries(indptr, queries.indices[kept], queries.values[kept], queries.num_features)


def among(known_B: NDArray[np.bool_], still_wanted: StillWanted) -> StillWanted:
    """The same question, answered for the known rows alone."""

    def ask() -> NDArray[np.bool_] | None:
        kept_B = still_wanted()
        return None if kept_B is None else kept_B[known_B]

    return ask


def spread(top: TopK, known_B: NDArray[np.bool_]) -> TopK:
    """Answers of the known rows as answers of all rows."""
    counts = np.zeros(len(known_B), np.int64)
    counts[known_B] = top.counts
    return TopK(top.labels, top.scores, counts)


def no_hits(num_queries: int) -> TopK:
    """Answers without any hit."""
    return TopK(np.empty(0, np.int64), np.empty(0, np.float32), np.zeros(num_queries, np.int64))
