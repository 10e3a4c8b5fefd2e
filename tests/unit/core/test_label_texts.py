"""The share of a label's text that a query has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import SparseQueries
from motherlode.core.rankers import LabelTexts
from motherlode.core.topk import TopK
from tests.support.rankers import random_sparse

NUM_FEATURES, NUM_LABELS = 12, 30
# The first has no feature.
TEXTS = random_sparse(NUM_LABELS, NUM_FEATURES)
LABELS = LabelTexts.of(TEXTS)
COUNTS = [3, 0, 30, 1]


def some_hits() -> TopK:
    rng = np.random.default_rng(3)
    labels = np.concatenate([rng.permutation(NUM_LABELS)[:count] for count in COUNTS])
    return TopK(labels, np.zeros(len(labels), np.float32), np.array(COUNTS))


def features_of(rows: SparseQueries, i: int) -> set[int]:
    return set(rows.indices[rows.indptr[i] : rows.indptr[i + 1]].tolist())


def test_shares_are_those_of_sets() -> None:
    top, queries = some_hits(), random_sparse(len(COUNTS), NUM_FEATURES, seed=5)
    rows = np.repeat(np.arange(len(COUNTS)), COUNTS)
    expected = []
    for row, label in zip(rows, top.labels, strict=True):
        text = features_of(TEXTS, label)
        expected.append(len(text & features_of(queries, row)) / max(len(text), 1))
    assert len(set(expected)) > 3
    shares = LABELS.shares(top, queries)
    assert shares.dtype == np.float32
    np.testing.assert_array_equal(shares, np.array(expected, np.float32))


def test_labels_without_texts_have_none_of_them() -> None:
    texts = LabelTexts.none(NUM_LABELS, NUM_FEATURES)
    queries = random_sparse(len(COUNTS), NUM_FEATURES)
    assert not texts.shares(some_hits(), queries).any()


def test_more_texts_come_after_the_others() -> None:
    more = random_sparse(4, NUM_FEATURES, seed=8)
    whole = LABELS.with_texts(more)
    assert whole.num_labels == NUM_LABELS + 4
    query = SparseQueries(np.array([0, 12]), np.arange(12), np.ones(12, np.float32), 12)
    labels = np.arange(NUM_LABELS + 4)
    top = TopK(labels, np.zeros(len(labels), np.float32), np.array([len(labels)]))
    sizes = np.concatenate([np.diff(TEXTS.indptr), np.diff(more.indptr)])
    np.testing.assert_array_equal(whole.shares(top, query), sizes > 0)


ARRAYS = {"text_offsets": np.array([0, 2, 3]), "text_features": np.array([1, 0, 3], np.int32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_offsets": np.array([0, 2, 4])}, r"text_offsets: expected 0 to 3, .*got \[0, 4\]"),
        ({"text_offsets": np.array([1, 2, 3])}, "text_offsets: expected 0 to 3, ascending"),
        ({"text_offsets": np.array([0, 4, 3])}, "text_offsets: expected 0 to 3, ascending"),
        ({"text_offsets": np.array([], np.int64)}, r"text_offsets: expected 0 to 3.* got \[\]"),
        ({"text_offsets": np.array([0, 2, 3.0])}, "text_offsets: expected a row of int64"),
        ({"text_features": np.array([1, 0, 4], np.int32)}, r"text_features: expected 0 to 3.*4"),
        ({"text_features": np.array([-1, 0, 3], np.int32)}, "text_features: expected 0 to 3"),
        ({"text_features": np.array([1, 0, 3])}, "text_features: expected a row of int32"),
    ],
)
def test_arrays_that_are_no_texts_are_refused(change: dict[str, Any], message: str) -> None:
    LabelTexts.of_arrays(ARRAYS, 4)
    with pytest.raises(InvalidInputError, match=message):
        LabelTexts.of_arrays(ARRAYS | change, 4)
