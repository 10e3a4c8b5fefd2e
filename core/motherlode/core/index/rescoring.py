"""The scores that users see, and the order they give.

FAISS adds up an inner product in an order that depends on the family of the index and the size of
the batch, so its scores only propose. What is returned is computed here, one pair at a time: on one
machine, the bits of a score depend on the query and the label alone.

Shapes: B queries, L labels in all, C candidates, K hits, D embedding width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import FloatArray, IntArray

# Floats gathered at once: 2 MiB, about what a core keeps near itself.
_BLOCK_FLOATS = 1 << 19
_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST_NORMAL = 2.0**-126


def rescore(queries_BD: FloatArray, labels_LD: FloatArray, rows_BC: IntArray) -> FloatArray:
    """float32 [B, C]: inner products of each query with its candidates.

    Args:
        queries_BD: float32 [B, D], C-contiguous.
        labels_LD: float32 [L, D], C-contiguous.
        rows_BC: int64 [B, C], rows of labels_LD; where negative, the score is -inf.
    """
    num_queries, num_candidates = rows_BC.shape
    scores_BC = np.empty(rows_BC.shape, np.float32)
    pairs = max(1, _BLOCK_FLOATS // labels_LD.shape[1])
    columns = min(num_candidates, pairs)
    rows = max(1, pairs // max(1, columns))
    for i in range(0, num_queries, rows):
        for j in range(0, num_candidates, columns):
            block = slice(i, i + rows), slice(j, j + columns)
            # One BLAS dot of D terms a pair: what stands beside a pair cannot change its bits.
            candidates_BCD = labels_LD.take(rows_BC[block], axis=0)
            np.vecdot(candidates_BCD, queries_BD[i : i + rows, None], out=scores_BC[block])
    if rows_BC.min(initial=0) < 0:
        scores_BC[rows_BC < 0] = -np.inf
    return scores_BC


def best_of(rows_BC: IntArray, scores_BC: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
    """The best candidates of each query, best first, ties by row.

    Returns:
        rows int64 and scores float32, both [B, count]; count must be at most C.
    """
    order_BK = np.lexsort((rows_BC, -scores_BC))[:, :count]
    order_BK += np.arange(0, rows_BC.size, rows_BC.shape[1])[:, None]
    return rows_BC.take(order_BK), scores_BC.take(order_BK)


def best_by_scan(
    query_D: FloatArray, labels_LD: FloatArray, allowed: IntArray | None, count: int
) -> tuple[IntArray, FloatArray]:
    """The best labels of one query, exactly: what `rescore` and `best_of` give over all labels.

    Args:
        query_D: float32 [D].
        labels_LD: float32 [L, D], C-contiguous.
        allowed: int64 [A], ascending rows to choose from; None for all.
        count: Hits wanted, 1 to the number of labels to choose from.

    Returns:
        rows int64 and scores float32, both [count].
    """
    if not query_D.any():
        # All scores are 0: the first labels are the answer, at no cost.
        rows_C = np.arange(count) if allowed is None else allowed[:count]
        scores_C = np.vecdot(labels_LD.take(rows_C, axis=0), query_D)
    else:
        scores_C = _scores_of(query_D, labels_LD, allowed)
        rows_C, scores_C = _at_least_nth(allowed, scores_C, count)
    # Rows ascend, so a stable order settles ties by row.
    order_K = np.argsort(-scores_C, kind="stable")[:count]
    return rows_C[order_K], scores_C[order_K]


def _scores_of(query_D: FloatArray, labels_LD: FloatArray, allowed: IntArray | None) -> FloatArray:
    """float32 [A]: scores of the allowed labels."""
    if allowed is not None and 2 * len(allowed) < len(labels_LD):
        scores_A: FloatArray = rescore(query_D[None], labels_LD, allowed[None])[0]
        return scores_A
    # To gather most labels takes longer than to score them all where they are.
    scores_L: FloatArray = np.vecdot(labels_LD, query_D)
    return scores_L if allowed is None else scores_L[allowed]


def _at_least_nth(
    rows: IntArray | None, scores: FloatArray, count: int
) -> tuple[IntArray, FloatArray]:
    """The candidates that score no less than the count-th best, ties included."""
    nth = np.partition(scores, len(scores) - count)[len(scores) - count]
    kept = np.flatnonzero(scores >= nth)
    return (kept if rows is None else rows[kept]), scores[kept]


def largest_norm(labels_LD: FloatArray) -> float:
    """Length of the longest label embedding; NaN or inf if one holds such a value."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.vecdot(labels_LD, labels_LD).max())
    if 1e-30 < square < np.inf:
        return float(np.sqrt(square))
    # Squares of such values have no place in a float32, or one is not a number.
    step = max(1, _BLOCK_FLOATS // labels_LD.shape[1])
    blocks = (labels_LD[i : i + step].astype(np.float64) for i in range(0, len(labels_LD), step))
    return float(np.sqrt(np.max([np.vecdot(block, block).max() for block in blocks])))


def disagreement(queries_BD: FloatArray, norm: float) -> NDArray[np.float64]:
    """float64 [B]: how far two float32 inner products of the same pair can be apart.

    Whatever the order of the additions, each is within D roundings of the true value, relative to
    |query| |label|; products below the normal range may be flushed to zero.

    Args:
        queries_BD: float32 [B, D].
        norm: No label is longer.
    """
    width = queries_BD.shape[1]
    wide_BD = queries_BD.astype(np.float64)
    norms_B = np.sqrt(np.vecdot(wide_BD, wide_BD))
    relative = 1.01 * (width + 1) * _UNIT_ROUNDOFF
    bound_B: NDArray[np.float64] = 2 * (relative * norms_B * norm + width * _SMALLEST_NORMAL)
    return bound_B
