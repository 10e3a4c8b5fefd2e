"""The row-sparse adjacency A of clusters and labels.

Row c has at most kappa labels; s_{c,l} = min(1, beta softmax_l(a_{c,l})) over them (ELIAS, Gupta et
al., NeurIPS 2022, eq. (5)).

Shapes: C clusters, W places of a row (kappa), L labels, B queries, E entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from motherlode.core.index import ClusterGraph
from motherlode.core.queries import FloatArray, IntArray
from motherlode.trainer.data import PositiveRows
from motherlode.trainer.optim import RowTable

# Where a row has no label: the softmax gives it nothing.
_NOTHING = -np.inf
_LEAST_WEIGHT = np.float32(1e-6)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Adjacency:
    """Labels of each cluster and what leads to them.

    Attributes:
        labels_CW: int64 [C, W], distinct in a row; -1 where there is none, behind the others.
        logits: a_{c,l}, float32 [C, W], learned; -inf where there is no label.
    """

    labels_CW: IntArray
    logits: RowTable

    def weights(self, beta: float, logits_CW: Tensor | None = None) -> Tensor:
        """s_{c,l}: float32 [C, W], 0 where there is no label.

        Args:
            beta: What the softmax is multiplied with.
            logits_CW: Some rows in place of all, with gradients.
        """
        if logits_CW is None:
            logits_CW = self.logits.weights_RD
        return torch.softmax(logits_CW, dim=1).mul(beta).clamp(max=1.0)

    def parents(self, num_labels: int) -> IntArray:
        """argmax_c a_{c,l}: int64 [L], the cluster that leads to each label most; ties by cluster.

        Args:
            num_labels: L; each is in some cluster.
        """
        rows_E, places_E = np.nonzero(self.labels_CW >= 0)
        labels_E = self.labels_CW[rows_E, places_E]
        order = np.lexsort((rows_E, -self.logits.weights_RD.numpy()[rows_E, places_E], labels_E))
        firsts_L = np.searchsorted(labels_E[order], np.arange(num_labels))
        parents_L: IntArray = rows_E[order][firsts_L]
        return parents_L

    def graph(self, clusters_CD: FloatArray, beta: float) -> ClusterGraph:
        """What an index is made of.

        Args:
            clusters_CD: float32 [C, D].
            beta: As for `weights`.
        """
        rows_E, places_E = np.nonzero(self.labels_CW >= 0)
        weights_E = self.weights(beta).numpy()[rows_E, places_E]
        # A label whose share is beyond float32 can still be found.
        np.maximum(weights_E, _LEAST_WEIGHT, out=weights_E)
        labels_E = self.labels_CW[rows_E, places_E]
        return ClusterGraph.from_edges(clusters_CD, rows_E, labels_E, weights_E)


def balanced_adjacency(clusters_L: IntArray, num_clusters: int) -> Adjacency:
    """The fixed A of stage 1: each label in its cluster alone, all labels of a cluster alike.

    Args:
        clusters_L: int64 [L], the cluster of each label.
        num_clusters: C.
    """
    order = np.argsort(clusters_L, kind="stable")
    return _padded(clusters_L[order], order, num_clusters, np.zeros(len(order), np.float32))


def learned_adjacency(
    assigned_BC: Any,
    positives: PositiveRows,
    clusters_L: IntArray,
    labels_per_cluster: int,
    generator: np.random.Generator,
) -> Adjacency:
    """The A that stage 2 starts from: the heaviest of M^T Y in each row, at random logits.

    M holds the cluster scores of the beam of each query, Y its labels; a_{c,l} ~ U(0, 1) on the
    support (section 4.3 of the paper). Each label keeps the cluster of stage 1, so that all can be
    found.

    Args:
        assigned_BC: M, csr_array of float32 [B, C].
        positives: Y.
        clusters_L: int64 [L], clusters of stage 1.
        labels_per_cluster: kappa; at least as many as a cluster of stage 1 has.
        generator: Of the logits.
    """
    num_clusters, num_labels = assigned_BC.shape[1], len(clusters_L)
    ones = np.ones(len(positives.indices), np.float32)
    shape = len(positives), num_labels
    labels_of = csr_array((ones, positives.indices, positives.indptr), shape=shape)
    mass_CL = (assigned_BC.T.tocsr() @ labels_of).tocoo()
    # Those of stage 1 are heavier than all others.
    rows_E = np.concatenate([clusters_L, mass_CL.row.astype(np.int64)])
    labels_E = np.concatenate([np.arange(num_labels), mass_CL.col.astype(np.int64)])
    mass_E = np.concatenate([np.full(num_labels, np.inf, np.float32), mass_CL.data])
    rows_E, labels_E = _heaviest(rows_E, labels_E, mass_E, labels_per_cluster)
    logits_E = generator.random(len(rows_E), np.float32)
    return _padded(rows_E, labels_E, num_clusters, logits_E)


def _heaviest(
    rows_E: IntArray, labels_E: IntArray, mass_E: NDArray[np.float32], count: int
) -> tuple[IntArray, IntArray]:
    """The `count` heaviest labels of each row, ties by label; of two of one label the heavier."""
    order = np.lexsort((-mass_E, labels_E, rows_E))
    rows_E, labels_E, mass_E = rows_E[order], labels_E[order], mass_E[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (rows_E[1:] != rows_E[:-1]) | (labels_E[1:] != labels_E[:-1])
    rows_E, labels_E, mass_E = rows_E[is_new], labels_E[is_new], mass_E[is_new]
    order = np.lexsort((labels_E, -mass_E, rows_E))
    order = order[_places(rows_E[order]) < count]
    return rows_E[order], labels_E[order]


def _places(rows_E: IntArray) -> IntArray:
    """int64 [E]: the place of each entry in its row; rows ascend."""
    return np.arange(len(rows_E)) - np.searchsorted(rows_E, rows_E)


def _padded(
    rows_E: IntArray, labels_E: IntArray, num_clusters: int, logits_E: NDArray[np.float32]
) -> Adjacency:
    width = int(np.bincount(rows_E, minlength=num_clusters).max())
    labels_CW = np.full((num_clusters, width), -1, np.int64)
    logits_CW = np.full((num_clusters, width), _NOTHING, np.float32)
    places_E = _places(rows_E)
    labels_CW[rows_E, places_E] = labels_E
    logits_CW[rows_E, places_E] = logits_E
    return Adjacency(labels_CW, RowTable(torch.from_numpy(logits_CW)))
