"""Features that come ready."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import BundleError, InvalidQueryError
from motherlode.core.features import (
    DenseFeaturesConfig,
    DenseFeaturizer,
    SparseFeaturesConfig,
    SparseFeaturizer,
    load_featurizer,
)
from motherlode.core.queries import DenseQueries, SparseQueries, TextQueries


def sparse(*rows: list[float], num_features: int = 4) -> SparseQueries:
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.concatenate([np.arange(len(row)) for row in rows])
    values = np.array([value for row in rows for value in row], np.float32)
    return SparseQueries(indptr, indices, values, num_features)


def test_sparse_rows_are_scaled_to_length_one_and_rows_of_zeros_stay() -> None:
    featurizer = SparseFeaturizer(SparseFeaturesConfig(), num_features=4)

    features = featurizer.transform(sparse([3.0, 4.0], [], [0.0], [-2.0]))

    assert features.values.dtype == np.float32
    np.testing.assert_allclose(features.values, [0.6, 0.8, 0.0, -1.0], rtol=1e-6)
    assert features.indptr.tolist() == [0, 2, 2, 3, 4]


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_very_small_and_very_large_values_are_scaled_without_loss(size: float) -> None:
    featurizer = SparseFeaturizer(SparseFeaturesConfig(), num_features=4)

    features = featurizer.transform(sparse([3 * size, 4 * size]))

    np.testing.assert_allclose(features.values, [0.6, 0.8], rtol=1e-6)


def test_sparse_rows_stay_as_they_are_when_not_normalised() -> None:
    featurizer = SparseFeaturizer(SparseFeaturesConfig(normalize=False), num_features=4)
    queries = sparse([3.0, 4.0])

    assert featurizer.transform(queries) is queries


def test_dense_features_stay_as_they_are() -> None:
    queries = DenseQueries(np.ones((2, 3), np.float32))

    assert DenseFeaturizer(DenseFeaturesConfig(), num_features=3).transform(queries) is queries


def test_sparse_features_of_another_width_are_refused() -> None:
    featurizer = SparseFeaturizer(SparseFeaturesConfig(), num_features=5)

    with pytest.raises(
        InvalidQueryError, match=r"queries\.num_features: expected 5 features, got 4"
    ):
        featurizer.transform(sparse([1.0]))


def test_dense_features_of_another_width_are_refused() -> None:
    featurizer = DenseFeaturizer(DenseFeaturesConfig(), num_features=3)

    with pytest.raises(InvalidQueryError, match=r"features\.shape: expected 3 features, got 2"):
        featurizer.transform(DenseQueries(np.ones((1, 2), np.float32)))


def test_texts_are_refused_by_featurizers_of_ready_features() -> None:
    for featurizer in (
        SparseFeaturizer(SparseFeaturesConfig(), num_features=2),
        DenseFeaturizer(DenseFeaturesConfig(), num_features=2),
    ):
        with pytest.raises(InvalidQueryError, match=r"queries: expected .* features"):
            featurizer.transform(TextQueries(["a"]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("{", "Invalid JSON"),
        ('{"num_features": 3, "config": {"kind": "other"}}', "config: .*'other'"),
        ('{"num_features": 0, "config": {"kind": "dense"}}', "num_features"),
        ('{"num_features": 3, "config": {"kind": "dense", "more": 1}}', "more"),
    ],
)
def test_a_broken_config_is_refused_with_its_place(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    with pytest.raises(BundleError, match=rf"(?s)config\.json: .*{reason}"):
        load_featurizer(tmp_path)
