from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motherlode.core.topk import TopK, concatenate, top_k_of_candidates


def make(*rows: list[tuple[int, float]]) -> TopK:
    return TopK(
        np.array([label for row in rows for label, _ in row], np.int64),
        np.array([score for row in rows for _, score in row], np.float32),
        np.array([len(row) for row in rows], np.int64),
    )


def rows_of(top: TopK) -> list[list[tuple[int, float]]]:
    return [
        list(zip(*(part.tolist() for part in top.row(i)), strict=True)) for i in range(len(top))
    ]


ROWS = [[(3, 2.0), (1, 1.0)], [], [(7, 0.5)], [(0, 9.0), (4, 9.0), (2, -1.0)]]


def test_rows_come_back_as_they_were_put_in():
    top = make(*ROWS)
    assert len(top) == 4
    assert rows_of(top) == ROWS
    assert top.offsets.tolist() == [0, 2, 2, 3, 6]


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, 2), (3, 4)])
def test_a_range_of_rows_is_an_answer_of_its_own(start, stop):
    assert rows_of(make(*ROWS).rows(start, stop)) == ROWS[start:stop]


def test_an_empty_answer_has_no_rows_and_one_offset():
    empty = concatenate([])
    assert (len(empty), len(empty.labels), empty.offsets.tolist()) == (0, 0, [0])
    assert (empty.labels.dtype, empty.scores.dtype, empty.counts.dtype) == (
        np.int64,
        np.float32,
        np.int64,
    )


def test_answers_are_put_together_in_order():
    parts = [make(*ROWS[:1]), make(*ROWS[1:3]), make(), make(*ROWS[3:])]
    assert rows_of(concatenate(parts)) == ROWS


def candidates(rows: list[list[tuple[int, float, bool]]]) -> tuple[np.ndarray, ...]:
    columns = [[[c[i] for c in row] for row in rows] for i in range(3)]
    return (
        np.array(columns[0], np.int64),
        np.array(columns[1], np.float32),
        np.array(columns[2], np.bool_),
    )


def test_the_best_candidates_are_kept_and_ties_go_to_the_smaller_label():
    rows = [[(5, 1.0, True), (9, 3.0, True), (2, 1.0, True)]]
    assert rows_of(top_k_of_candidates(*candidates(rows), 2)) == [[(9, 3.0), (2, 1.0)]]


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 99.0])
def test_what_an_invalid_candidate_holds_does_not_matter(hidden):
    rows = [[(5, hidden, False), (9, -3.0, True)], [(1, 0.0, True), (1, hidden, False)]]
    assert rows_of(top_k_of_candidates(*candidates(rows), 2)) == [[(9, -3.0)], [(1, 0.0)]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_without_queries_or_candidates_there_are_no_hits(shape):
    top = top_k_of_candidates(
        np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.bool_), 3
    )
    assert (top.counts.tolist(), len(top.labels)) == ([0] * shape[0], 0)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(1, 5),
    num_candidates=st.integers(1, 12),
    k=st.integers(1, 14),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_choice_is_that_of_sorting_the_valid_candidates(
    seed, num_queries, num_candidates, k, share
):
    generator = np.random.default_rng(seed)
    shape = num_queries, num_candidates
    labels_BC = np.stack([generator.permutation(20)[:num_candidates] for _ in range(num_queries)])
    scores_BC = generator.integers(-2, 3, shape).astype(np.float32)
    valid_BC = generator.random(shape) < share
    top = top_k_of_candidates(labels_BC, scores_BC, valid_BC, k)
    expected = [
        sorted(
            zip(labels[valid].tolist(), scores[valid].tolist(), strict=True),
            key=lambda hit: (-hit[1], hit[0]),
        )[:k]
        for labels, scores, valid in zip(labels_BC, scores_BC, valid_BC, strict=True)
    ]
    assert rows_of(top) == expected
    assert (top.labels.dtype, top.scores.dtype, top.counts.dtype) == (
        np.int64,
        np.float32,
        np.int64,
    )
