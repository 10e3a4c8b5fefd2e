"""What a sparse linear ranker computes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import DenseQueries, SparseQueries
from motherlode.core.rankers import JOINED, SparseLinear, SparseLinearConfig, SparseWeights
from motherlode.core.topk import TopK
from tests.support.rankers import JOIN, random_sparse, random_weights

NUM_FEATURES, NUM_LABELS = 12, 30
WEIGHTS = random_weights(NUM_FEATURES, NUM_LABELS)
FREQUENCIES = np.arange(NUM_LABELS)
RANKER = SparseLinear(SparseLinearConfig(join=JOIN), WEIGHTS, FREQUENCIES)


def dense_weights() -> Any:
    """float64 [L, F + 1]."""
    dense_LF = np.zeros((NUM_LABELS, NUM_FEATURES + 1))
    for label in range(NUM_LABELS):
        row = slice(WEIGHTS.indptr[label], WEIGHTS.indptr[label + 1])
        dense_LF[label, WEIGHTS.indices[row]] = WEIGHTS.values[row]
    return dense_LF


def dense_queries(queries: SparseQueries) -> Any:
    """float64 [B, F + 1], with 1 at the end of each."""
    dense_BF = np.zeros((len(queries), queries.num_features + 1))
    dense_BF[:, -1] = 1
    rows = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))
    dense_BF[rows, queries.indices] = queries.values
    return dense_BF


def everything(num_queries: int) -> TopK:
    """All labels as the shortlist of each query."""
    labels = np.tile(np.arange(NUM_LABELS), num_queries)
    scores = np.random.default_rng(0).random(len(labels)).astype(np.float32)
    return TopK(labels, scores, np.full(num_queries, NUM_LABELS))


def test_margins_are_those_of_a_dense_product() -> None:
    queries = random_sparse(40, NUM_FEATURES)
    margins = RANKER.margins(everything(40), queries).reshape(40, NUM_LABELS)
    np.testing.assert_allclose(margins, dense_queries(queries) @ dense_weights().T, atol=1e-6)


def test_a_query_without_features_has_the_biases_as_margins() -> None:
    nothing = SparseQueries(np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros(0, "f4"), 12)
    biases = WEIGHTS.values[WEIGHTS.indptr[1:] - 1]
    np.testing.assert_array_equal(RANKER.margins(everything(1), nothing), biases)


def test_a_score_is_the_weighted_sum_of_what_is_joined() -> None:
    queries = random_sparse(5, NUM_FEATURES)
    top = everything(5)
    m = (dense_queries(queries) @ dense_weights().T).ravel()
    s, f = top.scores.astype(np.float64), np.log1p(np.tile(FREQUENCIES, 5))
    terms = [s, m, np.log1p(np.exp(-2 * m)), f, s * m, s * f, m * f]
    assert len(terms) == len(JOINED)
    expected = sum(weight * term for weight, term in zip(JOIN, terms, strict=True))
    ranked = RANKER.rank(top, queries, NUM_LABELS)
    for row in range(5):
        labels, scores = ranked.row(row)
        np.testing.assert_allclose(scores, expected.reshape(5, -1)[row, labels], rtol=1e-5)


def test_dense_features_are_refused() -> None:
    queries = DenseQueries(np.ones((1, NUM_FEATURES), np.float32))
    with pytest.raises(InvalidInputError, match="features: expected 12 sparse features"):
        RANKER.rank(everything(1), queries, 1)


def test_frequencies_of_other_labels_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"frequencies: expected 30, .*, got 29"):
        SparseLinear(RANKER.config, WEIGHTS, FREQUENCIES[:-1])


@pytest.mark.parametrize("join", [JOIN[:-1], (*JOIN, 1.0), (float("nan"), *JOIN[1:])])
def test_a_join_of_other_terms_is_refused(join: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="join"):
        SparseLinearConfig(join=join)


ROWS = {
    "indptr": np.array([0, 2, 3]),
    "indices": np.array([1, 4, 4], np.int32),
    "values": np.array([1, 2, 3], np.float32),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": np.array([1, 2, 3])}, "indptr: expected offsets from 0"),
        ({"indptr": np.array([0, 3, 3])}, "indptr: .*none empty"),
        ({"indptr": np.array([0])}, "indptr: expected offsets from 0"),
        ({"indptr": np.array([0, 2, 4])}, "indices: expected 4 of both, got '3 indices"),
        ({"indices": np.array([1, 4, 5], np.int32)}, "indices: expected 0 to 4"),
        ({"indices": np.array([-1, 4, 4], np.int32)}, "indices: expected 0 to 4"),
        ({"indices": np.array([4, 1, 4], np.int32)}, "indices: .*which ends each row"),
        ({"indices": np.array([1, 4, 4])}, "indices: expected a row of int32, got 'int64'"),
        ({"values": np.array([1, 2, 3.0])}, "values: expected a row of float32, got 'float64'"),
        ({"values": np.ones((3, 1), np.float32)}, "values: expected a row of float32"),
    ],
)
def test_arrays_that_are_no_rows_are_refused(change: dict[str, Any], message: str) -> None:
    SparseWeights(**ROWS, num_features=4)
    with pytest.raises(InvalidInputError, match=message):
        SparseWeights(**(ROWS | change), num_features=4)


def test_loaded_weights_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    WEIGHTS.save(tmp_path / "w.safetensors", FREQUENCIES)
    loaded, frequencies_L = SparseWeights.load(tmp_path / "w.safetensors", NUM_FEATURES)
    np.testing.assert_array_equal(frequencies_L, FREQUENCIES)
    for name in ("indptr", "indices", "values"):
        array = getattr(loaded, name)
        np.testing.assert_array_equal(array, getattr(WEIGHTS, name))
        assert not array.flags.writeable
    with pytest.raises(BundleError, match=r"w\.safetensors: no sparse linear classifiers"):
        SparseWeights.load(tmp_path / "w.safetensors", NUM_FEATURES - 1)
