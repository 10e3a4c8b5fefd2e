"""Sparse linear classifiers: what they learn from, and that they solve the problem they state."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import sparse
from sklearn.svm import LinearSVC

from motherlode.core.queries import SparseQueries
from motherlode.core.topk import TopK
from motherlode.trainer import classifiers
from motherlode.trainer.classifiers import ClassifiersConfig, fit_classifiers, make_pairs
from motherlode.trainer.data import PositiveRows
from tests.support.rankers import dense_weights

NUM_QUERIES, NUM_FEATURES, NUM_LABELS = 300, 40, 12
EXACT = ClassifiersConfig(tolerance=1e-6, max_rounds=100_000, smallest_weight=0.0)


def made_up(seed: int = 0) -> tuple[SparseQueries, PositiveRows, TopK]:
    """Queries with noisy labels, and shortlists of 5 labels; label 3 has no query."""
    rng = np.random.default_rng(seed)
    dense = sparse.random(NUM_QUERIES, NUM_FEATURES, 0.15, random_state=seed, dtype=np.float32)
    matrix = dense.tocsr()
    matrix.sort_indices()
    queries = SparseQueries(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data, NUM_FEATURES
    )
    known = np.delete(np.arange(NUM_LABELS), 3)
    rows = [np.sort(rng.choice(known, rng.integers(1, 4), replace=False)) for _ in range(300)]
    positives = PositiveRows(np.cumsum([0, *map(len, rows)]), np.concatenate(rows))
    labels = np.concatenate([rng.permutation(NUM_LABELS)[:5] for _ in range(NUM_QUERIES)])
    scores = np.ones(len(labels), np.float32)
    return queries, positives, TopK(labels, scores, np.full(NUM_QUERIES, 5))


def test_pairs_are_the_positives_and_the_wrong_hits_of_labels_with_queries() -> None:
    positives = PositiveRows(np.array([0, 2, 3, 3]), np.array([0, 2, 2]))
    shortlist = TopK(np.array([2, 1, 0, 3, 2]), np.ones(5, np.float32), np.array([2, 2, 1]))
    pairs = make_pairs(positives, shortlist, 4)
    found = zip(pairs.labels_P.tolist(), pairs.rows_P.tolist(), pairs.is_true_P, strict=True)
    assert list(found) == [(0, 0, True), (0, 1, False), (2, 0, True), (2, 1, True), (2, 2, False)]


def test_each_classifier_is_the_one_that_liblinear_finds_for_its_label_alone() -> None:
    queries, positives, shortlist = made_up()
    weights = fit_classifiers(EXACT, queries, positives, shortlist, NUM_LABELS)
    matrix = sparse.csr_matrix((queries.values, queries.indices, queries.indptr))
    pairs = make_pairs(positives, shortlist, NUM_LABELS)
    for label in (0, 1, 7, 11):
        mine = pairs.labels_P == label
        rows = sparse.hstack([matrix[pairs.rows_P[mine]], np.ones((mine.sum(), 1))]).tocsr()
        alone = LinearSVC(C=1.0, tol=1e-6, max_iter=100_000, dual=True, fit_intercept=False)
        expected = alone.fit(rows, pairs.is_true_P[mine]).coef_[0]
        actual = np.append(dense_weights(weights)[label], weights.biases_L[label])
        np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_the_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_classifiers(EXACT, *made_up(), NUM_LABELS)
    monkeypatch.setattr(classifiers, "_PAIRS_OF_BLOCK", 1)
    single = fit_classifiers(EXACT, *made_up(), NUM_LABELS)
    np.testing.assert_allclose(dense_weights(whole), dense_weights(single), atol=2e-4)
    np.testing.assert_allclose(whole.biases_L, single.biases_L, atol=2e-4)


def test_the_same_data_gives_the_same_bits() -> None:
    first, second = (fit_classifiers(ClassifiersConfig(), *made_up(), NUM_LABELS) for _ in range(2))
    assert first.values_W.tobytes() == second.values_W.tobytes()
    assert first.keys_W.tobytes() == second.keys_W.tobytes()


def test_a_label_without_queries_has_a_bias_of_0_alone() -> None:
    weights = fit_classifiers(EXACT, *made_up(), NUM_LABELS)
    assert weights.num_labels == NUM_LABELS
    assert weights.biases_L[3] == 0.0
    assert not dense_weights(weights)[3].any()


def test_small_weights_are_dropped_and_biases_are_not() -> None:
    config = EXACT.model_copy(update={"smallest_weight": 0.3})
    all_weights = fit_classifiers(EXACT, *made_up(), NUM_LABELS)
    kept = fit_classifiers(config, *made_up(), NUM_LABELS)
    expected = all_weights.values_W[np.abs(all_weights.values_W) >= 0.3]
    assert 0 < len(kept.values_W) < len(all_weights.values_W)
    np.testing.assert_array_equal(kept.values_W, expected)
    np.testing.assert_array_equal(kept.biases_L, all_weights.biases_L)
    assert (np.abs(kept.biases_L) < 0.3).any()


def test_a_block_of_true_pairs_alone_has_the_margin_of_the_true() -> None:
    queries, positives, _ = made_up()
    none = TopK(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(NUM_QUERIES, np.int64))
    weights = fit_classifiers(EXACT, queries, positives, none, NUM_LABELS)
    assert weights.biases_L.tolist() == [float(label != 3) for label in range(NUM_LABELS)]
    assert len(weights.keys_W) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("negatives", 0),
        ("cost", 0.0),
        ("cost", float("inf")),
        ("tolerance", 0.0),
        ("max_rounds", 0),
        ("smallest_weight", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        ClassifiersConfig.model_validate({field: value})
