from __future__ import annotations

import numpy as np
import pytest

from motherlode.core.errors import InvalidQueryError
from motherlode.core.index import LabelFilter


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_an_allow_filter_lets_its_rows_through():
    assert LabelFilter(rows(0, 3), "allow").allowed_rows(5).tolist() == [0, 3]


def test_a_deny_filter_lets_the_others_through():
    assert LabelFilter(rows(0, 3), "deny").allowed_rows(5).tolist() == [1, 2, 4]


def test_empty_filters_allow_nothing_or_everything():
    assert LabelFilter(rows(), "allow").allowed_rows(3).tolist() == []
    assert LabelFilter(rows(), "deny").allowed_rows(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("mode", ["allow", "deny"])
def test_a_row_that_is_not_there_is_refused(mode):
    with pytest.raises(InvalidQueryError, match=r"filter\.rows: expected rows below 5.*got 5"):
        LabelFilter(rows(0, 5), mode).allowed_rows(5)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (rows(2, 1), "ascending"),
        (rows(1, 1), "each once"),
        (rows(-1, 1), "rows from 0"),
        (rows(1, 2)[None], "one axis"),
        (np.array([1, 2], np.int32), "int64"),
        (np.array([1.0]), "int64"),
    ],
)
def test_rows_that_are_not_ascending_row_numbers_are_refused(wrong, expected):
    with pytest.raises(InvalidQueryError, match=expected) as caught:
        LabelFilter(wrong, "allow")
    assert caught.value.field == "filter.rows"


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidQueryError, match=r"filter\.mode: expected allow or deny"):
        LabelFilter(rows(1), "only")
