from __future__ import annotations

import os

import numpy as np
import pytest

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries, FloatArray, IntArray
from motherlode.core.rankers import LabelTree
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.label_tree import fit_label_tree, fit_proposal
from motherlode.trainer.negatives import LabelTreeConfig
from tests.support.label_trees import clustered_queries, enumerated

CONFIG = LabelTreeConfig()


def one_each(labels_N: IntArray) -> PositiveRows:
    return PositiveRows(np.arange(len(labels_N) + 1), labels_N)


def fitted(num_queries: int, num_labels: int) -> tuple[LabelTree, FloatArray, IntArray]:
    queries_NK, labels_N = clustered_queries(num_queries, num_labels)
    return fit_label_tree(queries_NK, one_each(labels_N), num_labels, CONFIG), queries_NK, labels_N


@pytest.mark.parametrize("num_labels", [1, 2, 3, 5, 64, 1000])
def test_a_tree_of_any_size_is_a_distribution_over_the_labels(num_labels: int) -> None:
    tree, queries_NK, _ = fitted(3 * num_labels, num_labels)
    assert tree.num_labels == num_labels
    for query_K in queries_NK[:3]:
        assert enumerated(tree, query_K).sum() == pytest.approx(1.0, rel=1e-5)


def test_planted_clusters_are_far_likelier_than_by_label_frequencies() -> None:
    tree, queries_NK, labels_N = fitted(2000, 64)
    held_out_NK, held_out_N = clustered_queries(4000, 64)
    fresh = slice(2000, None)
    likelihood = tree.log_prob(held_out_NK[fresh], np.arange(2000), held_out_N[fresh]).mean()
    frequencies_L = np.bincount(labels_N, minlength=64) / len(labels_N)
    by_frequency = np.log(frequencies_L[held_out_N[fresh]]).mean()
    assert queries_NK.shape == (2000, 4)
    assert likelihood > by_frequency + 1.0


def test_labels_without_a_query_are_spread_evenly_and_unlikely_but_possible() -> None:
    queries_NK, labels_N = clustered_queries(2000, 20)
    # Labels 0 to 19 have queries, 20 to 49 have none.
    tree = fit_label_tree(queries_NK, one_each(labels_N), 50, CONFIG)
    half = len(tree.labels_E) // 2
    for side in (tree.labels_E[:half], tree.labels_E[half:]):
        assert (side >= 20).sum() == 15
        assert ((side >= 0) & (side < 20)).sum() == 10
    probabilities_BL = np.stack([enumerated(tree, query_K) for query_K in queries_NK[:50]])
    assert probabilities_BL[:, 20:].min() > 0
    # They are 60 % of the labels.
    assert probabilities_BL[:, 20:].sum(axis=1).mean() < 0.03


def test_without_any_positive_all_labels_are_equally_likely() -> None:
    tree = fit_label_tree(
        np.ones((2, 3), np.float32),
        PositiveRows(np.zeros(3, np.int64), np.zeros(0, int)),
        11,
        CONFIG,
    )
    assert enumerated(tree, np.ones(3, np.float32)).tolist() == pytest.approx([1 / 11] * 11)


def test_a_query_counts_once_for_each_of_its_labels() -> None:
    queries_NK, labels_N = clustered_queries(300, 16)
    both = np.sort(np.stack([labels_N, (labels_N + 1) % 16], axis=1), axis=1)
    several = fit_label_tree(
        queries_NK, PositiveRows(np.arange(0, 601, 2), both.ravel()), 16, CONFIG
    )
    repeated = fit_label_tree(np.repeat(queries_NK, 2, axis=0), one_each(both.ravel()), 16, CONFIG)
    np.testing.assert_array_equal(several.labels_E, repeated.labels_E)
    np.testing.assert_allclose(several.weights_VK, repeated.weights_VK, atol=1e-5)


def test_the_same_data_give_the_same_bits_on_any_number_of_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trees = []
    for cores in ({0}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        trees.append(fitted(1500, 200)[0])
    for name in ("weights_VK", "biases_V", "labels_E"):
        np.testing.assert_array_equal(getattr(trees[0], name), getattr(trees[1], name))


def test_a_node_with_more_pairs_than_a_tile_is_fitted_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _, _ = fitted(700, 8)
    monkeypatch.setattr("motherlode.trainer.label_tree._TILE", 64)
    monkeypatch.setattr("motherlode.trainer.tree_nodes._TILES_AT_ONCE", 3)
    monkeypatch.setattr("motherlode.trainer.label_tree._MOST_INPUTS", 1000)
    tiled, _, _ = fitted(700, 8)
    np.testing.assert_array_equal(tiled.labels_E, whole.labels_E)
    np.testing.assert_allclose(tiled.weights_VK, whole.weights_VK, atol=1e-5)


def test_a_proposal_is_fitted_from_features_and_depends_on_the_seed_alone() -> None:
    queries_NK, labels_N = clustered_queries(400, 16)
    config = LabelTreeConfig(num_components=3)
    (whitening, tree), (again, tree_again) = (
        fit_proposal(
            DenseQueries(queries_NK), one_each(labels_N), 16, config, np.random.default_rng(0)
        )
        for _ in range(2)
    )
    assert (whitening.num_features, whitening.num_components) == (4, 3)
    np.testing.assert_array_equal(whitening.table_FK, again.table_FK)
    np.testing.assert_array_equal(tree.weights_VK, tree_again.weights_VK)


ONE = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
    ("projected_NK", "labels", "num_labels", "message"),
    [
        (ONE, [0], 0, "num_labels: expected at least 1, got 0"),
        (ONE, [3], 3, "positives: expected 0 to 2, got 3"),
        (ONE, [0, 1], 2, "projected: expected 2 queries.*got 1"),
        (ONE * np.float32(np.nan), [0], 1, "projected: expected finite numbers"),
    ],
)
def test_bad_input_is_refused_by_name(
    projected_NK: FloatArray, labels: list[int], num_labels: int, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fit_label_tree(projected_NK, one_each(np.array(labels)), num_labels, CONFIG)
