from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries, SparseQueries
from motherlode.trainer.whitening import fit_whitening


def features(num_queries: int = 400, num_features: int = 60) -> tuple[SparseQueries, DenseQueries]:
    """The same queries sparse and dense, of falling variance and a mean far from zero."""
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random(num_queries, num_features, 0.4, "csr", np.float32, rng=rng)
    matrix = (matrix @ scipy.sparse.diags_array(0.8 ** np.arange(num_features))).tocsr()
    matrix.sort_indices()
    data = matrix.data.astype(np.float32)
    sparse = SparseQueries(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), data, num_features
    )
    return sparse, DenseQueries(matrix.toarray().astype(np.float32))


def test_training_features_become_uncorrelated_with_mean_zero_and_variance_one() -> None:
    for queries in features():
        whitening = fit_whitening(queries, 8, np.random.default_rng(0))
        projected_BK = whitening.transform(queries).astype(float)
        np.testing.assert_allclose(projected_BK.mean(axis=0), 0.0, atol=1e-5)
        np.testing.assert_allclose(projected_BK.T @ projected_BK / 400, np.eye(8), atol=1e-4)


def test_the_components_are_those_of_a_full_decomposition() -> None:
    sparse, dense = features()
    centred_NF = dense.features_BF.astype(float) - dense.features_BF.mean(axis=0, dtype=float)
    left_NF, singular_F, _ = np.linalg.svd(centred_NF, full_matrices=False)
    expected_NK = left_NF[:, :6] * np.sqrt(400)
    for queries in (sparse, dense):
        whitening = fit_whitening(queries, 6, np.random.default_rng(0))
        actual_NK = whitening.transform(queries)
        signs_K = np.sign((actual_NK * expected_NK).sum(axis=0))
        np.testing.assert_allclose(actual_NK * signs_K, expected_NK, atol=0.02)
    assert singular_F[5] > singular_F[6]


def test_the_same_seed_gives_the_same_bits_and_another_nearly_the_same() -> None:
    sparse, _ = features()
    first, again, other = (
        fit_whitening(sparse, 4, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.table_FK, again.table_FK)
    np.testing.assert_array_equal(first.offset_K, again.offset_K)
    np.testing.assert_allclose(other.table_FK, first.table_FK, atol=1e-2)


def test_components_beyond_the_rank_are_zero() -> None:
    line_BF = np.outer(np.arange(10), [1, 2, 3]).astype(np.float32)
    queries = DenseQueries(line_BF)
    projected_BK = fit_whitening(queries, 5, np.random.default_rng(0)).transform(queries)
    assert projected_BK.shape == (10, 5)
    assert projected_BK[:, 0].std() == pytest.approx(1.0, rel=1e-5)
    assert not projected_BK[:, 1:].any()


def test_features_that_do_not_vary_give_zeros() -> None:
    queries = DenseQueries(np.full((5, 3), 2.0, np.float32))
    whitening = fit_whitening(queries, 2, np.random.default_rng(0))
    assert not whitening.transform(queries).any()


def test_no_query_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="features: expected at least 1 query"):
        fit_whitening(DenseQueries(np.zeros((0, 3), np.float32)), 2, np.random.default_rng(0))
