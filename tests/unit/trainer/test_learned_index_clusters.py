"""Centroids, balanced clusters and adjacencies of the learned index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from motherlode.core.encoders import BagEncoder, BagEncoderConfig
from motherlode.core.encoders.head import Head, HeadConfig
from motherlode.core.queries import DenseQueries, SparseQueries
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.learned_index.adjacency import balanced_adjacency, learned_adjacency
from motherlode.trainer.learned_index.centroids import Centroids, label_centroids
from motherlode.trainer.learned_index.clustering import balanced_clusters


def drawn(num_labels: int, seed: int = 0, *, sparse: bool = True) -> Centroids:
    generator = np.random.default_rng(seed)
    dense_LV = generator.standard_normal((num_labels, 4)).astype(np.float32)
    rows = generator.random((num_labels, 30)).astype(np.float32)
    sparse_LF = csr_array(rows * (rows > 0.8)) if sparse else None
    return Centroids(sparse_LF, dense_LV)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(
    ("num_labels", "num_clusters"), [(1, 1), (7, 7), (10, 3), (64, 8), (65, 8), (100, 13)]
)
def test_sizes_of_clusters_differ_by_at_most_one(num_labels, num_clusters, sparse):
    centroids = drawn(num_labels, sparse=sparse)
    clusters_L = balanced_clusters(centroids, num_clusters, np.random.default_rng(0))
    sizes = np.bincount(clusters_L, minlength=num_clusters)
    assert len(sizes) == num_clusters
    assert sizes.max() - sizes.min() <= 1


def test_the_same_generator_gives_the_same_clusters_and_another_may_give_others():
    centroids = drawn(200)
    first, again, other = (
        balanced_clusters(centroids, 16, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("sparse", [True, False])
def test_groups_that_lie_apart_become_clusters(sparse):
    groups = np.repeat(np.arange(8), 5)
    order = np.random.default_rng(3).permutation(40)
    points = np.eye(8, dtype=np.float32)[groups[order]]
    nothing = np.zeros((40, 1), np.float32)
    centroids = Centroids(csr_array(points), nothing) if sparse else Centroids(None, points)
    clusters_L = balanced_clusters(centroids, 8, np.random.default_rng(0))
    together = {tuple(np.unique(clusters_L[groups[order] == group])) for group in range(8)}
    # Splits start from two labels at random and may part one group; most stay whole.
    assert sum(len(clusters) == 1 for clusters in together) >= 6


def test_sparse_and_dense_parts_are_looked_at_alike():
    generator = np.random.default_rng(5)
    points = generator.random((60, 12)).astype(np.float32)
    dense = balanced_clusters(Centroids(None, points), 4, np.random.default_rng(0))
    nothing = np.zeros((60, 1), np.float32)
    sparse = balanced_clusters(Centroids(csr_array(points), nothing), 4, np.random.default_rng(0))
    assert dense.tolist() == sparse.tolist()


POSITIVES = PositiveRows(np.array([0, 2, 3]), np.array([0, 2, 2]))
FEATURES = SparseQueries(
    np.array([0, 1, 3]), np.array([0, 0, 1]), np.array([2, 3, 4], np.float32), 2
)


def encoder() -> BagEncoder:
    head = Head(2, HeadConfig(normalize=True), torch.Generator())
    return BagEncoder(BagEncoderConfig(width=2), torch.eye(2), head)


def test_a_centroid_is_the_direction_of_the_features_and_embeddings_of_its_queries():
    labels_LD = np.array([[1, 0], [0, -3], [0, 1]], np.float32)
    centroids = label_centroids(encoder(), FEATURES, POSITIVES, labels_LD)
    # psi of the two queries: (1, 0, 1, 0) and (0.6, 0.8, 0.6, 0.8).
    both = np.array([1.6, 0.8, 1.6, 0.8])
    expected = [
        np.array([1, 0, 1, 0]) / np.sqrt(2),
        [0, 0, 0, -1],  # of a label without a query: its own embedding
        both / np.linalg.norm(both),
    ]
    actual = np.hstack([centroids.sparse_LF.toarray(), centroids.dense_LV])
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_dense_features_stand_beside_the_embedding():
    features = DenseQueries(np.array([[2, 0], [3, 4]], np.float32))

    class Same:
        def encode(self, part: DenseQueries) -> np.ndarray:
            return part.features_BF

    centroids = label_centroids(Same(), features, POSITIVES, np.eye(3, 2, dtype=np.float32))  # type: ignore[arg-type]
    assert centroids.sparse_LF is None
    np.testing.assert_allclose(centroids.dense_LV[0], np.array([1, 0, 1, 0]) / np.sqrt(2))


def test_a_balanced_adjacency_has_each_label_once_and_all_alike():
    adjacency = balanced_adjacency(np.array([1, 0, 1, 0, 1]), 2)
    assert adjacency.labels_CW.tolist() == [[1, 3, -1], [0, 2, 4]]
    assert adjacency.weights(10.0).tolist() == [[1, 1, 0], [1, 1, 1]]
    assert adjacency.parents(5).tolist() == [1, 0, 1, 0, 1]


def learned(kappa: int) -> list[list[int]]:
    """The support from three queries: M is [[.9, .1], [.5, 0], [0, .7]]."""
    assigned_BC = csr_array(np.array([[0.9, 0.1], [0.5, 0], [0, 0.7]], np.float32))
    positives = PositiveRows(np.array([0, 2, 3, 5]), np.array([0, 1, 1, 2, 3]))
    clusters_L = np.array([0, 1, 0, 1])
    adjacency = learned_adjacency(
        assigned_BC, positives, clusters_L, kappa, np.random.default_rng(0)
    )
    logits = adjacency.logits.weights_RD[torch.from_numpy(adjacency.labels_CW) >= 0]
    assert ((logits >= 0) & (logits < 1)).all()
    return [[label for label in row if label >= 0] for row in adjacency.labels_CW.tolist()]


def test_the_support_of_an_adjacency_is_the_heaviest_of_assignments_times_positives():
    # M^T Y: cluster 0 has 0.9, 1.4, 0, 0; cluster 1 has 0.1, 0.1, 0.7, 0.7.
    assert learned(4) == [[0, 2, 1], [1, 3, 2, 0]]
    assert learned(3) == [[0, 2, 1], [1, 3, 2]]


def test_each_label_keeps_its_cluster_of_stage_1_whatever_its_weight():
    assert learned(2) == [[0, 2], [1, 3]]


def test_a_graph_has_the_edges_of_the_adjacency_heaviest_first():
    adjacency = balanced_adjacency(np.array([0, 0, 1]), 2)
    adjacency.logits.weights_RD[0] = torch.tensor([0.0, np.log(3.0)])
    graph = adjacency.graph(np.ones((2, 3), np.float32), 0.8)
    assert graph.edges.labels.tolist() == [1, 0, 2]
    np.testing.assert_allclose(graph.edges.weights, [0.6, 0.2, 0.8], rtol=1e-6)
    graph.check(3, 3)
