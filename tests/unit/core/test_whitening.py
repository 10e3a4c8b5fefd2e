from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from safetensors.numpy import save_file

from motherlode.core.errors import BundleError, InvalidInputError
from motherlode.core.queries import DenseQueries, Features, SparseQueries
from motherlode.core.rankers import Whitening

RNG = np.random.default_rng(0)
WHITENING = Whitening(
    RNG.standard_normal((50, 5)).astype(np.float32), RNG.standard_normal(5).astype(np.float32)
)


def both_kinds(num_queries: int) -> dict[str, Features]:
    matrix = scipy.sparse.random(
        num_queries, 50, 0.3, "csr", np.float32, rng=np.random.default_rng(1)
    )
    matrix.sort_indices()
    indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    return {
        "sparse": SparseQueries(indptr, indices, matrix.data, 50),
        "dense": DenseQueries(matrix.toarray()),
    }


def test_sparse_and_dense_features_are_projected_alike() -> None:
    kinds = both_kinds(33)
    sparse_BK, dense_BK = (WHITENING.transform(kinds[name]) for name in ("sparse", "dense"))
    features = kinds["dense"]
    assert isinstance(features, DenseQueries)
    expected_BK = features.features_BF.astype(float) @ WHITENING.table_FK - WHITENING.offset_K
    assert sparse_BK.dtype == dense_BK.dtype == np.float32
    np.testing.assert_allclose(sparse_BK, expected_BK, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense_BK, expected_BK, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_a_query_has_the_same_bits_alone_and_in_any_batch(kind: str) -> None:
    features = both_kinds(70)[kind]
    together_BK = WHITENING.transform(features)
    for start, stop in [(0, 1), (3, 20), (69, 70), (5, 38)]:
        alone_BK = WHITENING.transform(features.rows(start, stop))
        np.testing.assert_array_equal(alone_BK, together_BK[start:stop])


def test_a_query_without_features_is_minus_the_offset() -> None:
    nothing = SparseQueries(np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros(0, "f4"), 50)
    np.testing.assert_array_equal(WHITENING.transform(nothing)[0], -WHITENING.offset_K)


def test_other_features_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="features: expected 50 features, got 49"):
        WHITENING.transform(DenseQueries(np.zeros((1, 49), np.float32)))


def test_a_saved_whitening_loads_as_it_was(tmp_path: Path) -> None:
    WHITENING.save(tmp_path / "w.safetensors")
    loaded = Whitening.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(loaded.table_FK, WHITENING.table_FK)
    np.testing.assert_array_equal(loaded.offset_K, WHITENING.offset_K)


@pytest.mark.parametrize(
    "arrays",
    [
        {"table": np.zeros((4, 2), np.float32)},
        {"table": np.zeros((4, 2), np.float32), "offset": np.zeros(3, np.float32)},
        {"table": np.zeros((4, 2)), "offset": np.zeros(2, np.float32)},
        {"table": np.full((4, 2), np.inf, np.float32), "offset": np.zeros(2, np.float32)},
    ],
)
def test_a_damaged_whitening_is_refused_by_file(
    tmp_path: Path, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
) -> None:
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(BundleError, match=r"w\.safetensors: not a whitening"):
        Whitening.load(tmp_path / "w.safetensors")
