"""Clusters of equal size: a tree of balanced 2-means, all nodes of a level at once.

Each split moves the labels that lean most to one of two centroids to its side, as many as that side
has room for (hierarchical balanced spherical k-means, as in Parabel, Prabhu et al., WWW 2018, and
PECOS). Cluster i of C has room for L // C labels, and the first L % C for one more.

Shapes: L labels, C clusters, N nodes of a level, E entries of the sparse part, V width of the
dense part.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from motherlode.core.queries import IntArray
from motherlode.trainer.learned_index.centroids import Centroids

Reals = NDArray[np.float64]

_ROUNDS = 8


def balanced_clusters(
    centroids: Centroids, num_clusters: int, generator: np.random.Generator
) -> IntArray:
    """The cluster of each label: int64 [L]; sizes differ by at most 1.

    Args:
        centroids: Of L labels.
        num_clusters: C, 1 to L.
        generator: Chooses the two labels that each split starts from.
    """
    num_labels = len(centroids.dense_LV)
    starts = np.zeros(num_clusters + 1, np.int64)
    sizes = np.full(num_clusters, num_labels // num_clusters)
    sizes[: num_labels % num_clusters] += 1
    np.cumsum(sizes, out=starts[1:])
    # A node is the clusters from its first to before its last.
    firsts_L = np.zeros(num_labels, np.int64)
    lasts_L = np.full(num_labels, num_clusters)
    while (lasts_L - firsts_L > 1).any():
        # An odd cluster goes left, so that no branch is deeper than another by more than one.
        middles_L = (firsts_L + lasts_L + 1) // 2
        room_L = starts[middles_L] - starts[firsts_L]
        goes_left_L = _split(centroids, firsts_L, room_L, generator)
        lasts_L = np.where(goes_left_L, middles_L, lasts_L)
        firsts_L = np.where(goes_left_L, firsts_L, middles_L)
    return firsts_L


def _split(
    centroids: Centroids, nodes_L: IntArray, room_L: IntArray, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Bool [L]: the labels of each node that go left, as many as there is room for."""
    names, places_L = np.unique(nodes_L, return_inverse=True)
    level = _Level(centroids, places_L, len(names))
    signs_L = _two_seeds(places_L, len(names), generator)
    goes_left_L = np.zeros(len(nodes_L), np.bool_)
    for _ in range(_ROUNDS):
        leaning_L = level.leaning(signs_L)
        order_L = np.lexsort((-leaning_L, places_L))
        sizes_N = np.bincount(places_L)
        ranks = np.arange(len(order_L)) - np.repeat(np.cumsum(sizes_N) - sizes_N, sizes_N)
        before_L, goes_left_L = goes_left_L, np.empty_like(goes_left_L)
        goes_left_L[order_L] = ranks < room_L[order_L]
        if (before_L == goes_left_L).all():
            break
        signs_L = np.where(goes_left_L, 1.0, -1.0)
    return goes_left_L


def _two_seeds(places_L: IntArray, num_nodes: int, generator: np.random.Generator) -> Reals:
    """float64 [L]: 1 and -1 for two labels of each node, where it has two, and 0 for the others."""
    order_L = generator.permutation(len(places_L))
    order_L = order_L[np.argsort(places_L[order_L], kind="stable")]
    sizes_N = np.bincount(places_L, minlength=num_nodes)
    starts_N = np.cumsum(sizes_N) - sizes_N
    signs_L = np.zeros(len(places_L))
    signs_L[order_L[starts_N]] = 1.0
    signs_L[order_L[starts_N[sizes_N > 1] + 1]] = -1.0
    return signs_L


@final
class _Level:
    """The nodes of one level: which centroid their labels lean to."""

    def __init__(self, centroids: Centroids, places_L: IntArray, num_nodes: int) -> None:
        self._dense_LV = centroids.dense_LV
        by_node_L = np.argsort(places_L, kind="stable")
        starts = np.searchsorted(places_L[by_node_L], np.arange(num_nodes + 1))
        self._members_NL = by_node_L, starts
        self._places_L = places_L
        self._num_nodes = num_nodes
        self._sparse = centroids.sparse_LF
        if self._sparse is not None:
            self._lay_out(self._sparse)

    def _lay_out(self, sparse_LF: Any) -> None:
        """Which entries of a node are of the same feature, so that sums need no dense rows."""
        self._rows_E = np.repeat(np.arange(sparse_LF.shape[0]), np.diff(sparse_LF.indptr))
        keys_E = self._places_L[self._rows_E] * sparse_LF.shape[1] + sparse_LF.indices
        keys, self._slots_E = np.unique(keys_E, return_inverse=True)
        self._nodes_of_slots = keys // sparse_LF.shape[1]

    def leaning(self, signs_L: Reals) -> Reals:
        """float64 [L]: inner product with its node's centroid of + less that with that of -."""
        left, right = self._sums(signs_L > 0), self._sums(signs_L < 0)
        dense_NV = left[0] - right[0]
        dense_LV = dense_NV.astype(np.float32)[self._places_L]
        leaning_L: Reals = np.vecdot(self._dense_LV, dense_LV).astype(np.float64)
        if self._sparse is not None:
            weights_E = self._sparse.data * (left[1] - right[1])[self._slots_E]
            leaning_L += np.bincount(self._rows_E, weights_E, len(leaning_L))
        return leaning_L

    def _sums(self, is_chosen_L: NDArray[np.bool_]) -> tuple[Reals, Reals]:
        """Of chosen labels the sum in each node, dense and sparse part, at length 1 together."""
        members, starts = self._members_NL
        shape = self._num_nodes, len(is_chosen_L)
        chosen_NL = csr_array((is_chosen_L[members].astype(np.float32), members, starts), shape)
        dense_NV = (chosen_NL @ self._dense_LV).astype(np.float64)
        squares_N = np.vecdot(dense_NV, dense_NV)
        slots: Any = np.empty(0)
        if self._sparse is not None:
            weights_E = self._sparse.data * is_chosen_L[self._rows_E]
            slots = np.bincount(self._slots_E, weights_E, len(self._nodes_of_slots))
            squares_N += np.bincount(self._nodes_of_slots, slots**2, self._num_nodes)
        norms_N = np.sqrt(np.where(squares_N > 0, squares_N, 1))
        if self._sparse is not None:
            slots = slots / norms_N[self._nodes_of_slots]
        return dense_NV / norms_N[:, None], slots
