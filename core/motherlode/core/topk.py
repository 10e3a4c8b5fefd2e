"""The answer to a batch of queries: columnar, ragged, never padded.

Shapes: B queries, K hits asked for, N hits in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.compressed_rows import offsets_of
from motherlode.core.queries import FloatArray, IntArray


@final
@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """The best labels of each query, best first; ties stand in order of label.

    Attributes:
        labels: int64 [N], rows of the bundle's label table; the hits of query 0 first.
        scores: float32 [N], higher is better, finite.
        counts: int64 [B], hits of each query; fewer than k where there are no more.
    """

    labels: IntArray
    scores: FloatArray
    counts: IntArray

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def offsets(self) -> IntArray:
        """int64 [B + 1]: the hits of query i are offsets[i] to offsets[i + 1]."""
        return offsets_of(self.counts)

    def row(self, i: int) -> tuple[IntArray, FloatArray]:
        """Labels and scores of query i."""
        start = int(self.counts[:i].sum())
        stop = start + int(self.counts[i])
        return self.labels[start:stop], self.scores[start:stop]

    def rows(self, start: int, stop: int) -> TopK:
        """The answers of queries start to stop, stop excluded; the arrays are views."""
        offsets = self.offsets
        hits = slice(offsets[start], offsets[stop])
        return TopK(self.labels[hits], self.scores[hits], self.counts[start:stop])


def top_k_of_candidates(
    labels_BC: IntArray, scores_BC: FloatArray, valid_BC: NDArray[np.bool_], k: int
) -> TopK:
    """The best k of each query's candidates; ties go to the smaller label.

    Args:
        labels_BC: int64 [B, C], distinct within a row where valid.
        scores_BC: float32 [B, C].
        valid_BC: bool [B, C]; False entries are ignored whatever they hold.
        k: Hits to keep, at least 1.
    """
    if valid_BC.all():
        order_BK = np.lexsort((labels_BC, -scores_BC))[:, :k]
    else:
        keys_BC = np.where(valid_BC, -scores_BC, np.float32(np.inf))
        order_BK = np.lexsort((labels_BC, keys_BC, ~valid_BC))[:, :k]
    order_BK += np.arange(len(order_BK))[:, None] * labels_BC.shape[1]
    kept_BK = valid_BC.take(order_BK)
    kept = order_BK.ravel() if kept_BK.all() else order_BK[kept_BK]
    return TopK(labels_BC.take(kept), scores_BC.take(kept), kept_BK.sum(axis=1, dtype=np.int64))


def concatenate(parts: Sequence[TopK]) -> TopK:
    """The answers of several batches as one, in order; no part gives an empty answer."""
    if not parts:
        return TopK(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    return TopK(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )
