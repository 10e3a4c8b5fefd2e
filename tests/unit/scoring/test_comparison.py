from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motherlode.core.labels import LabelTable
from motherlode.core.topk import TopK
from motherlode.scoring.comparison import compare_answers, rows_in


def table(keys: str) -> LabelTable:
    """One label for each letter."""
    return LabelTable(list(keys), None, np.zeros(len(keys), np.int64))


def top(labels: LabelTable, *answers: str, scores: list[float] | None = None) -> TopK:
    """One answer of letters for each query."""
    rows = [labels.row_of(key) for answer in answers for key in answer]
    given = np.linspace(1, 0, len(rows)) if scores is None else scores
    counts = [len(answer) for answer in answers]
    return TopK(np.array(rows, np.int64), np.array(given, np.float32), np.array(counts, np.int64))


def compare(first_keys: str, first: list[str], second_keys: str, second: list[str]):
    a, b = table(first_keys), table(second_keys)
    return compare_answers(top(a, *first), top(b, *second), rows_in(a, b))


def test_labels_are_matched_by_key():
    assert rows_in(table("abc"), table("cxba")).tolist() == [2, -1, 1, 0]


def test_labels_of_an_empty_overlap_match_nothing():
    assert rows_in(table("ab"), table("xyz")).tolist() == [-1, -1, -1]


def test_the_same_labels_in_other_rows_are_the_same_answer():
    found = compare("abcd", ["abc", "d"], "dcba", ["abc", "d"])
    assert found.overlaps_B.tolist() == [1, 1]
    assert found.same_answer_B.tolist() == [True, True]


def test_the_same_rows_of_other_labels_are_another_answer():
    found = compare("abc", ["ab"], "xyz", ["xy"])
    assert found.overlaps_B.tolist() == [0]
    assert not found.same_first_B[0]
    assert found.shift is None


def test_overlap_is_a_share_of_the_longer_answer():
    found = compare("abcd", ["abcd", "ab", "abc"], "abcd", ["ab", "cdab", "cba"])
    assert found.overlaps_B.tolist() == [0.5, 0.5, 1.0]
    assert found.same_first_B.tolist() == [True, False, False]
    assert found.same_answer_B.tolist() == [False, False, False]


def test_two_empty_answers_agree_and_one_does_not():
    found = compare("ab", ["", "a", ""], "ab", ["", "", "b"])
    assert found.overlaps_B.tolist() == [1, 0, 0]
    assert found.same_first_B.tolist() == [True, False, False]
    assert found.same_answer_B.tolist() == [True, False, False]


def test_new_labels_are_not_taken_for_each_other():
    # Neither x nor y is known to the first; both have row -1 there.
    found = compare("ab", ["ab", "ba"], "xyab", ["xy", "yx"])
    assert found.overlaps_B.tolist() == [0, 0]


def test_scores_are_compared_where_both_gave_the_label_to_the_query():
    a, b = table("abc"), table("cba")
    first = top(a, "ab", "c", scores=[1.0, 0.5, 0.25])
    second = top(b, "ba", "a", scores=[2.0, 0.75, 9.0])
    shift = compare_answers(first, second, rows_in(a, b)).shift
    assert shift is not None
    assert shift.num_hits == 2
    assert shift.mean == pytest.approx((-0.25 + 1.5) / 2)
    assert shift.largest == 1.5
    assert -0.25 <= shift.p5 <= shift.p50 <= shift.p95 <= 1.5


def test_movers_are_the_queries_with_the_least_overlap_and_below_one():
    found = compare("abcd", ["ab", "ab", "ab", "cd"], "abcd", ["ab", "ac", "cd", "ab"])
    assert found.movers(2).tolist() == [2, 3]
    assert found.movers(9).tolist() == [2, 3, 1]
    assert found.movers(0).tolist() == []


def test_answers_to_other_numbers_of_queries_are_refused():
    with pytest.raises(ValueError, match="expected answers to 1 queries, got 2"):
        compare("a", ["a"], "a", ["a", "a"])


@given(
    st.lists(st.permutations("abcdef").map(lambda p: "".join(p[:4])), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_figures_are_those_of_sets_of_keys(first, random):
    second = ["".join(random.sample("defghi", random.randint(0, 5))) for _ in first]
    found = compare("abcdef", first, "ihgfed", second)
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        assert found.overlaps_B[i] == len(set(a) & set(b)) / max(len(a), len(b))
        assert found.same_first_B[i] == (a[:1] == b[:1])
        assert found.same_answer_B[i] == (a == b)
