"""Bitmaps find what a search finds."""

from __future__ import annotations

import numpy as np
import pytest

from motherlode.core.rankers import SparseWeights
from motherlode.core.rankers.frequent_features import FrequentFeatures

NUM_FEATURES = 5


def keys_of(num_labels: int, shares: list[float]) -> np.ndarray:
    """Feature i has a weight of so many labels, drawn at random."""
    rng = np.random.default_rng(num_labels)
    has_weight_FL = rng.random((len(shares), num_labels)) < np.array(shares)[:, None]
    return np.flatnonzero(has_weight_FL)


@pytest.mark.parametrize("num_labels", [1, 63, 64, 65, 1000, 4096])
def test_each_weight_is_found_where_it_stands(num_labels: int) -> None:
    keys_W = keys_of(num_labels, [1.0, 0.0, 0.5, 0.03, 0.9])
    frequent = FrequentFeatures(keys_W, NUM_FEATURES, num_labels)
    features = np.flatnonzero(frequent.are_frequent(np.arange(NUM_FEATURES)))
    assert 0 in features
    assert 1 not in features
    labels = np.random.default_rng(0).permutation(num_labels)
    places, has_weight = frequent.places(features, labels)
    wanted = features[:, None] * num_labels + labels
    np.testing.assert_array_equal(has_weight, np.isin(wanted, keys_W))
    np.testing.assert_array_equal(keys_W[places[has_weight]], wanted[has_weight])
    assert ((places >= 0) & (places < len(keys_W))).all()


def test_a_bitmap_is_for_features_that_one_label_in_128_has() -> None:
    num_labels = 1280
    keys_W = np.concatenate([np.arange(9), num_labels + np.arange(10)])
    frequent = FrequentFeatures(keys_W, NUM_FEATURES, num_labels)
    assert frequent.are_frequent(np.arange(NUM_FEATURES)).tolist() == [False, True] + [False] * 3


def test_what_bitmaps_take_is_bounded_by_the_weights() -> None:
    """At the threshold they take most: 12 bytes for each 64 labels, a weight for each 128."""
    num_labels, num_features = 1280, 3
    keys_W = (np.arange(num_features)[:, None] * num_labels + np.arange(10)).ravel()
    frequent = FrequentFeatures(keys_W, num_features, num_labels)
    assert frequent.nbytes <= 24 * len(keys_W) + 16 * (num_features + 1)


def test_margins_are_the_same_with_and_without_bitmaps() -> None:
    num_labels = 5000
    keys_W = keys_of(num_labels, [0.2, 0.001, 0.02, 0.004, 0.0])
    rng = np.random.default_rng(0)
    values_W = rng.standard_normal(len(keys_W)).astype(np.float32)
    biases_L = rng.standard_normal(num_labels).astype(np.float32)
    weights = SparseWeights(keys_W, values_W, biases_L, NUM_FEATURES)
    values_Q, labels = rng.random(NUM_FEATURES, dtype=np.float32), rng.permutation(num_labels)
    dense_FL = np.zeros((NUM_FEATURES, num_labels), np.float32)
    dense_FL.ravel()[keys_W] = values_W
    expected = biases_L.copy()
    products_FL = dense_FL * values_Q[:, None]
    expected += np.add.accumulate(products_FL, axis=0)[-1]
    margins = weights.margins(np.arange(NUM_FEATURES), values_Q, labels)
    np.testing.assert_array_equal(margins, expected[labels])
