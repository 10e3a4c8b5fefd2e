"""How far the answers of two models differ, label by label and by the labels' keys.

Shapes: B queries, N hits in all, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from motherlode.core.labels import LabelTable
from motherlode.core.queries import IntArray
from motherlode.core.topk import TopK

__all__ = ["Comparison", "ScoreShift", "compare_answers", "rows_in"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreShift:
    """By how much scores of a label for a query differ: the second's less the first's.

    Attributes:
        num_hits: Hits that both gave.
        mean: Of all differences.
        p5: The difference that 5 % of all are below.
        p50: The median.
        p95: The difference that 95 % of all are below.
        largest: The difference that is farthest from 0.
    """

    num_hits: int
    mean: float
    p5: float
    p50: float
    p95: float
    largest: float


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Two answers to each of the same queries.

    Attributes:
        overlaps_B: float64 [B], for each query the hits that both gave, as a share of the hits of
            the one that gave more; 1 where neither gave any.
        same_first_B: bool [B], whether both gave the same label first, or none at all.
        same_answer_B: bool [B], whether both gave the same labels in the same order.
        shift: Of the scores; None where no hit is in both answers.
    """

    overlaps_B: NDArray[np.float64]
    same_first_B: NDArray[np.bool_]
    same_answer_B: NDArray[np.bool_]
    shift: ScoreShift | None

    def movers(self, count: int) -> IntArray:
        """int64, at most `count`: the queries with the least overlap, and below 1; least first."""
        order_B = np.argsort(self.overlaps_B, kind="stable")[:count]
        return order_B[self.overlaps_B[order_B] < 1].astype(np.int64)


def rows_in(first: LabelTable, second: LabelTable) -> IntArray:
    """int64 [L of second]: for each label its row in `first` by key; -1 where it has none."""
    keys, known = (table.keys.arrow for table in (second, first))
    rows: IntArray = pc.fill_null(pc.index_in(keys, value_set=known), -1).to_numpy()
    return rows.astype(np.int64)


def compare_answers(first: TopK, second: TopK, rows: IntArray) -> Comparison:
    """Compares two answers to the same queries.

    Args:
        first: Answers of one model.
        second: Those of the other, to the same queries.
        rows: int64 [L of second], from `rows_in`: the rows of the second's labels in the first.

    Raises:
        ValueError: If they are not answers to the same number of queries.
    """
    if len(first) != len(second):
        raise ValueError(f"expected answers to {len(first)} queries, got {len(second)}")
    # A label that the first does not know gets a number that none of its rows has.
    names = np.where(rows < 0, -1 - np.arange(len(rows)), rows)[second.labels]
    queries_first, queries_second = (
        np.repeat(np.arange(len(top)), top.counts) for top in (first, second)
    )
    in_first, in_second = _common(queries_first, first.labels, queries_second, names)
    num_common_B = np.bincount(queries_first[in_first], minlength=len(first))
    most_B = np.maximum(first.counts, second.counts)
    same_answer_B = _same_answers(first, second, names)
    differences = second.scores[in_second].astype(np.float64) - first.scores[in_first]
    return Comparison(
        overlaps_B=np.where(most_B == 0, 1.0, num_common_B / np.maximum(most_B, 1)),
        same_first_B=_same_answers(_firsts(first), _firsts(second), names[_first_hits(second)]),
        same_answer_B=same_answer_B,
        shift=_shift(differences),
    )


def _common(
    queries_first: IntArray, names_first: IntArray, queries_second: IntArray, names_second: IntArray
) -> tuple[IntArray, IntArray]:
    """Positions of the hits that both answers have, in the first and in the second."""
    lowest = int(min(names_first.min(initial=0), names_second.min(initial=0)))
    highest = int(max(names_first.max(initial=0), names_second.max(initial=0)))
    span = highest - lowest + 1
    pairs_first = queries_first * span + (names_first - lowest)
    pairs_second = queries_second * span + (names_second - lowest)
    _, in_first, in_second = np.intersect1d(
        pairs_first, pairs_second, assume_unique=True, return_indices=True
    )
    return in_first, in_second


def _same_answers(first: TopK, second: TopK, names_second: IntArray) -> NDArray[np.bool_]:
    """Which queries have the same labels in the same order in both answers: bool [B]."""
    same_B: NDArray[np.bool_] = first.counts == second.counts
    queries = np.repeat(np.arange(len(first)), first.counts)
    of_both = same_B[queries]
    ours = first.labels[of_both]
    theirs = names_second[np.repeat(same_B, second.counts)]
    same_B[queries[of_both][ours != theirs]] = False
    return same_B


def _first_hits(top: TopK) -> IntArray:
    return top.offsets[:-1][top.counts > 0]


def _firsts(top: TopK) -> TopK:
    """The best label of each query, or none."""
    hits = _first_hits(top)
    return TopK(top.labels[hits], top.scores[hits], np.minimum(top.counts, 1))


def _shift(differences: NDArray[np.float64]) -> ScoreShift | None:
    if not len(differences):
        return None
    p5, p50, p95 = np.quantile(differences, [0.05, 0.5, 0.95]).tolist()
    return ScoreShift(
        num_hits=len(differences),
        mean=float(differences.mean()),
        p5=p5,
        p50=p50,
        p95=p95,
        largest=float(differences[np.abs(differences).argmax()]),
    )
