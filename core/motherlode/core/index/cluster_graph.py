"""What a learned index consists of: clusters, and weighted edges from them to labels.

Shapes: C clusters, E edges, L labels in all, N labels that are new, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.index.paths import Edges, unit_queries
from motherlode.core.queries import FloatArray, IntArray


@final
@dataclass(frozen=True, slots=True, eq=False)
class ClusterGraph:
    """Clusters of labels; a label may be in several (ELIAS, Gupta et al., NeurIPS 2022).

    Attributes:
        clusters_CD: float32 [C, D], w_c: a query looks into clusters by w_c . x / |x|.
        edges: s_{c,l} of eq. (5), after normalisation and clamping, so above 0 and at most 1.
    """

    clusters_CD: FloatArray
    edges: Edges

    @classmethod
    def from_edges(
        cls,
        clusters_CD: FloatArray,
        clusters_E: IntArray,
        labels_E: IntArray,
        weights_E: FloatArray,
    ) -> ClusterGraph:
        """A graph of edges in any order; its own are by cluster, the heaviest first.

        Args:
            clusters_CD: float32 [C, D].
            clusters_E: int64 [E], the cluster of each edge.
            labels_E: int64 [E], its label; each at most once a cluster.
            weights_E: float32 [E].
        """
        order_E = np.lexsort((labels_E, -weights_E, clusters_E))
        indptr = np.zeros(len(clusters_CD) + 1, np.int64)
        np.cumsum(np.bincount(clusters_E, minlength=len(clusters_CD)), out=indptr[1:])
        labels = labels_E[order_E].astype(np.int32)
        return cls(clusters_CD, Edges(indptr, labels, weights_E[order_E].astype(np.float32)))

    @property
    def num_clusters(self) -> int:
        """C."""
        return len(self.clusters_CD)

    @property
    def size_bytes(self) -> int:
        """Memory of all arrays."""
        edges = self.edges
        arrays = (self.clusters_CD, edges.indptr, edges.labels, edges.weights)
        return sum(array.nbytes for array in arrays)

    def clusters_of_edges(self) -> IntArray:
        """int64 [E]: the cluster of each edge."""
        return np.repeat(np.arange(self.num_clusters), np.diff(self.edges.indptr))

    def check(self, num_labels: int, width: int) -> None:
        """Refuses a graph that cannot be searched, or that some label is not in.

        Raises:
            ValueError: If so; says what is wrong.
        """
        edges = self.edges
        if self.clusters_CD.ndim != 2 or self.clusters_CD.shape[1] != width:
            raise ValueError(f"clusters: shape is {self.clusters_CD.shape}, expected [C, {width}]")
        if not np.isfinite(self.clusters_CD).all() or self.num_clusters < 1:
            raise ValueError("clusters: expected one or more, of finite values")
        _check_rows(edges, self.num_clusters)
        if not ((edges.weights > 0) & (edges.weights <= 1)).all():
            raise ValueError("weights: expected above 0, at most 1")
        if len(edges.labels) == 0 or edges.labels.min() < 0 or edges.labels.max() >= num_labels:
            raise ValueError(f"labels: expected rows below {num_labels}")
        if len(np.unique(edges.labels)) < num_labels:
            raise ValueError("labels: expected each in a cluster, and some are in none")
        pairs_E = self.clusters_of_edges() * num_labels + edges.labels
        if len(np.unique(pairs_E)) < len(pairs_E):
            raise ValueError("labels: expected each at most once in a cluster")

    def with_labels(self, labels_ND: FloatArray, first: int) -> ClusterGraph:
        """The graph with more labels, each in the cluster that its own embedding looks into first.

        Args:
            labels_ND: float32 [N, D].
            first: Row of the first of them.
        """
        new_N = np.arange(first, first + len(labels_ND))
        nearest_N = np.argmax(unit_queries(labels_ND) @ self.clusters_CD.T, axis=1)
        return ClusterGraph.from_edges(
            self.clusters_CD,
            np.concatenate([self.clusters_of_edges(), nearest_N]),
            np.concatenate([self.edges.labels.astype(np.int64), new_N]),
            np.concatenate([self.edges.weights, np.ones(len(new_N), np.float32)]),
        )


def _check_rows(edges: Edges, num_clusters: int) -> None:
    indptr: NDArray[np.int64] = edges.indptr
    ends = [len(edges.labels), len(edges.weights)]
    if len(indptr) != num_clusters + 1 or indptr[0] != 0 or [indptr[-1]] * 2 != ends:
        raise ValueError("offsets: expected one a cluster, from 0 to the number of edges")
    if (np.diff(indptr) < 0).any():
        raise ValueError("offsets: expected ascending")
