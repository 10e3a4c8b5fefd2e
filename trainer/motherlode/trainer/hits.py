"""Which hits of a ranking are true, and the sums over them that an evaluation is made of.

Shapes: B queries, L labels, P true pairs of query and label, T of them with a place in a ranking.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import IntArray
from motherlode.core.topk import TopK

Reals = NDArray[np.float64]


class Positives(Protocol):
    """True labels in compressed rows, as a scipy CSR matrix holds them.

    Attributes:
        indptr: int [B + 1], offsets of the rows, indptr[0] = 0.
        indices: int [P], rows of the label table, in any order, distinct within a query.
    """

    @property
    def indptr(self) -> IntArray: ...  # noqa: D102 (described above)
    @property
    def indices(self) -> IntArray: ...  # noqa: D102 (described above)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A ranking and its truth.

    Attributes:
        top: Answers to B queries.
        indptr: int [B + 1], as in Positives, but indptr[0] may be any offset into indices.
        indices: int [P], as in Positives.
        num_true: int64 [B], all true labels, those that the label table lacks included.
    """

    top: TopK
    indptr: IntArray
    indices: IntArray
    num_true: IntArray

    @classmethod
    def of(cls, top: TopK, positives: Positives, num_true: IntArray) -> Judged:
        """The ranking and its truth, checked.

        Raises:
            ValueError: If the three are not of one length, or num_true is below the positives.
        """
        lengths = np.diff(positives.indptr)
        if not len(top) == len(lengths) == len(num_true):
            raise ValueError(
                "answers, positives and num_true must be of one length, got "
                f"{len(top)}, {len(lengths)} and {len(num_true)}"
            )
        if np.any(num_true < lengths):
            raise ValueError("num_true must not be below the number of a query's positives")
        return cls(top, positives.indptr, positives.indices, num_true)

    def chunks(self, size: int) -> Iterator[Judged]:
        """The same queries in order, at most `size` at a time; the arrays are views."""
        offsets = self.top.offsets
        for start in range(0, len(self.top), size):
            stop = min(start + size, len(self.top))
            hits = slice(offsets[start], offsets[stop])
            counts = self.top.counts[start:stop]
            top = TopK(self.top.labels[hits], self.top.scores[hits], counts)
            yield Judged(
                top, self.indptr[start : stop + 1], self.indices, self.num_true[start:stop]
            )

    def true_pairs(self) -> tuple[IntArray, IntArray]:
        """Query (0 to B - 1) and label of each true pair that the table knows: int64 [P] each."""
        rows = np.repeat(np.arange(len(self.top)), np.diff(self.indptr))
        return rows, self.indices[self.indptr[0] : self.indptr[-1]].astype(np.int64, copy=False)


@final
@dataclass(frozen=True, slots=True, eq=False)
class RankedPairs:
    """True pairs of query and label, each with its place in a ranking.

    Attributes:
        rows: int64 [T], queries.
        ranks: int64 [T], places from 0.
        labels: int64 [T], rows of the label table; L stands for all labels that it lacks.
    """

    rows: IntArray
    ranks: IntArray
    labels: IntArray

    def sums_at(self, gains: Reals, ks: IntArray) -> Reals:
        """float64 [len(ks)]: the sum of `gains`, float64 [T], over the first k places."""
        by_rank = np.bincount(self.ranks, weights=gains, minlength=int(ks.max()))
        return np.asarray(np.cumsum(by_rank)[ks - 1], np.float64)

    def discounted_sums_at(self, gains: Reals, num_true: IntArray, ks: IntArray) -> Reals:
        """float64 [len(ks)]: like sums_at, of gain / log2(place + 1), places counted from 1.

        Each is divided by the sum of 1 / log2(place + 1) over the first min(k, true labels) places.
        """
        discounts = 1.0 / np.log2(np.arange(2, int(ks.max()) + 2))
        ideals = np.cumsum(discounts)
        sums = np.empty(len(ks))
        for i, k in enumerate(ks):
            inside = self.ranks < k
            places = np.minimum(num_true[self.rows[inside]], k)
            discounted = gains[inside] * discounts[self.ranks[inside]]
            sums[i] = np.sum(discounted / ideals[places - 1])
        return sums


def true_hits(judged: Judged, num_labels: int) -> RankedPairs:
    """The hits that are true, query by query, best first."""
    top = judged.top
    rows = np.repeat(np.arange(len(top)), top.counts)
    ranks = np.arange(len(rows)) - np.repeat(top.offsets[:-1], top.counts)
    true_rows, true_labels = judged.true_pairs()
    true_keys = np.sort(true_rows * num_labels + true_labels)
    found = _contains(true_keys, rows * num_labels + top.labels)
    return RankedPairs(rows[found], ranks[found], top.labels[found])


def ideal_ranking(judged: Judged, weights: Reals) -> RankedPairs:
    """All true pairs, the heaviest of each query first.

    Args:
        judged: The truth; its ranking is ignored.
        weights: float64 [L + 1], by label; the last is that of a label that the table lacks.
    """
    rows, labels = judged.true_pairs()
    num_lacking = judged.num_true - np.diff(judged.indptr)
    rows = np.concatenate([rows, np.repeat(np.arange(len(num_lacking)), num_lacking)])
    lacking = np.full(int(num_lacking.sum()), len(weights) - 1)
    labels = np.concatenate([labels, lacking])
    order = np.lexsort((-weights[labels], rows))
    starts = np.cumsum(judged.num_true) - judged.num_true
    ranks = np.arange(len(order)) - np.repeat(starts, judged.num_true)
    return RankedPairs(rows[order], ranks, labels[order])


def inverse_propensities(frequencies: IntArray, num_train: int, a: float, b: float) -> Reals:
    """float64 [L]: 1 / p_l = 1 + C (N_l + b)^-a, where C = (ln N - 1) (b + 1)^a, N_l = frequencies.

    Jain, Prabhu and Varma, "Extreme Multi-label Loss Functions for Recommendation, Tagging, Ranking
    & Other Missing Label Applications", KDD 2016. With N = 1 or 2 training queries C would be
    negative and rare labels would weigh less than frequent ones; C is 0 there: all weigh alike.
    """
    spread = max(math.log(max(num_train, 1)) - 1.0, 0.0) * (b + 1.0) ** a
    return np.asarray(1.0 + spread * (frequencies + b) ** -a, np.float64)


def _contains(sorted_keys: IntArray, keys: IntArray) -> NDArray[np.bool_]:
    if len(sorted_keys) == 0:
        return np.zeros(len(keys), np.bool_)
    places = np.searchsorted(sorted_keys, keys)
    return np.asarray(np.take(sorted_keys, places, mode="clip") == keys)
