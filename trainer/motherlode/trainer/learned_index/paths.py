"""Paths of a batch from its queries over clusters to labels, with gradients.

Which paths are best is found without gradients, as the index finds it; then their scores are
computed once more, so that gradients pass through those alone (ELIAS, Gupta et al., NeurIPS 2022,
eq. (1) to (6)).

Shapes: B queries, C clusters, J clusters looked into, W places of a row of A, K labels of a
shortlist, P positives, Q pairs of a positive and a cluster that it is in, L labels, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from motherlode.core.index.paths import Edges, best_clusters, best_edges
from motherlode.core.queries import FloatArray, IntArray
from motherlode.trainer.learned_index.adjacency import Adjacency

# Clusters that a training query looks into besides its beam, for those of its positives.
EXTRA_CLUSTERS = 5


def cluster_shares(queries_BD: Tensor, clusters_CD: Tensor) -> Tensor:
    """softmax_c(w_c . x / |x|), of which eq. (1) makes s_c = min(1, alpha share): [B, C]."""
    units_BD = torch.nn.functional.normalize(queries_BD, dim=1)
    return torch.softmax(units_BD @ clusters_CD.T, dim=1)


@final
@dataclass(frozen=True, slots=True, eq=False)
class ShortlistPaths:
    """The best path to each label of a shortlist.

    Attributes:
        labels_BK: int64 [B, K]; 0 where there is none.
        edges_BK: int64 [B, K], place of the path's edge in A laid out flat; 0 where there is none.
        clusters_BK: int64 [B, K], its cluster.
        is_there_BK: bool [B, K].
    """

    labels_BK: Tensor
    edges_BK: Tensor
    clusters_BK: Tensor
    is_there_BK: Tensor

    def scores(self, scores_BC: Tensor, weights_CW: Tensor) -> Tensor:
        """y_hat, eq. (6): float32 [B, K]."""
        edges_BK = weights_CW.reshape(-1)[self.edges_BK]
        return scores_BC.gather(1, self.clusters_BK) * edges_BK


@final
class LabelEdges:
    """Edges by label: over which clusters each label can be reached."""

    def __init__(self, labels_CW: IntArray, num_labels: int) -> None:
        flat = labels_CW.ravel()
        order = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
        self._edges = order
        self._indptr = np.searchsorted(flat[order], np.arange(num_labels + 1))
        self._width = labels_CW.shape[1]

    def of(self, labels_P: IntArray) -> tuple[Tensor, Tensor]:
        """All edges of some labels, one label after the other.

        Returns:
            int64 [Q], place in labels_P; int64 [Q], place of the edge in A laid out flat.
        """
        lengths_P = self._indptr[labels_P + 1] - self._indptr[labels_P]
        places_Q = np.repeat(np.arange(len(labels_P)), lengths_P)
        starts_P = self._indptr[labels_P] - (np.cumsum(lengths_P) - lengths_P)
        edges_Q = self._edges[np.arange(len(places_Q)) + starts_P[places_Q]]
        return torch.from_numpy(places_Q), torch.from_numpy(edges_Q)


def find_shortlist(
    adjacency: Adjacency,
    weights_CW: FloatArray,
    scores_BJ: FloatArray,
    clusters_BJ: IntArray,
    count: int,
) -> ShortlistPaths:
    """The `count` labels with the best paths over some clusters.

    Args:
        adjacency: A.
        weights_CW: float32 [C, W], s_{c,l}.
        scores_BJ: float32 [B, J], s_c of the clusters.
        clusters_BJ: int64 [B, J].
        count: K.
    """
    num_clusters, width = adjacency.labels_CW.shape
    indptr = np.arange(0, num_clusters * width + 1, width)
    edges = Edges(indptr, adjacency.labels_CW.reshape(-1).astype(np.int32), weights_CW.reshape(-1))
    edges_BK = best_edges(edges, scores_BJ, clusters_BJ, count)
    is_there_BK = edges_BK >= 0
    edges_BK[~is_there_BK] = 0
    labels_BK = np.maximum(adjacency.labels_CW.reshape(-1)[edges_BK], 0)
    return ShortlistPaths(
        torch.from_numpy(labels_BK),
        torch.from_numpy(edges_BK),
        torch.from_numpy(edges_BK // width),
        torch.from_numpy(is_there_BK),
    )


def training_clusters(
    shares_BC: FloatArray, parents_P: IntArray, rows_P: IntArray, beam: int
) -> IntArray:
    """The clusters that a training query looks into: int64 [B, J].

    Its beam, and as many of its positives' clusters as there is room for beside it, eq. (4). Where
    they fill less room, the next best clusters do.

    Args:
        shares_BC: float32 [B, C], at most 1.
        parents_P: int64 [P], argmax_c a_{c,l} of each positive.
        rows_P: int64 [P], its query.
        beam: b.
    """
    wanted = min(beam + EXTRA_CLUSTERS, shares_BC.shape[1])
    raised_BC = shares_BC.copy()
    # The beam comes first, then positives' clusters, then the others.
    np.put_along_axis(raised_BC, best_clusters(shares_BC, beam), 4.0, axis=1)
    is_outside_P = raised_BC[rows_P, parents_P] <= 1
    outside = rows_P[is_outside_P], parents_P[is_outside_P]
    raised_BC[outside] = 2 + shares_BC[outside]
    return best_clusters(raised_BC, wanted)


def positive_scores(
    pairs: tuple[Tensor, Tensor], rows_P: Tensor, scores_BC: Tensor, weights_CW: Tensor
) -> Tensor:
    """y_hat of positives over all clusters that they are in: float32 [P].

    Args:
        pairs: From `LabelEdges.of` for the positives.
        rows_P: int64 [P], the query of each.
        scores_BC: float32 [B, C].
        weights_CW: float32 [C, W].
    """
    places_Q, edges_Q = pairs
    clusters_Q = edges_Q // weights_CW.shape[1]
    paths_Q = scores_BC[rows_P[places_Q], clusters_Q] * weights_CW.reshape(-1)[edges_Q]
    best_P = paths_Q.new_zeros(len(rows_P))
    return best_P.scatter_reduce(0, places_Q, paths_Q, "amax", include_self=True)
