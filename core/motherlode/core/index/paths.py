"""Ways from a query over its best clusters to labels, and the best of them.

A path's score is s_c * s_{c,l}: that of its cluster for the query, times the weight of the edge
from the cluster to the label; a label's is that of its best path (ELIAS, Gupta et al., NeurIPS
2022, eq. (1), (5) and (6)). The trainer and the index go the same ways.

Shapes: B queries, C clusters, J clusters looked into, E edges of clusters to labels, W most edges
of a cluster, K edges kept, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.queries import FloatArray, IntArray

# Floats of clusters that are compared with all queries before the next ones: what a core keeps
# near itself.
_BLOCK_FLOATS = 1 << 18
# Paths looked at together: 4 MiB of keys.
_BLOCK_PATHS = 1 << 19
# Paths looked at for each label wanted, before more are.
_FIRST_LOOK = 4
_LOW_BITS = 32
_EDGE_MASK = (1 << _LOW_BITS) - 1


@final
@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Edges of clusters to labels, in compressed rows.

    Attributes:
        indptr: int64 [C + 1], where the edges of each cluster begin, and the last end.
        labels: int32 [E], distinct within a cluster.
        weights: float32 [E], 0 to 1.
    """

    indptr: IntArray
    labels: NDArray[np.int32]
    weights: FloatArray

    @property
    def widest(self) -> int:
        """W, edges of the cluster that has the most."""
        return int(np.diff(self.indptr).max(initial=0))


def unit_queries(queries_BD: FloatArray) -> FloatArray:
    """Queries at length 1, zeros left as they are: float32 [B, D], bits as for each one alone."""
    # The largest value first: a tiny or huge square has no place in a float32.
    peaks_B1 = np.abs(queries_BD).max(axis=1, keepdims=True)
    scaled_BD = queries_BD / np.where(peaks_B1 > 0, peaks_B1, 1).astype(np.float32)
    norms_B1 = np.sqrt(np.vecdot(scaled_BD, scaled_BD))[:, None]
    units_BD = scaled_BD / np.where(norms_B1 > 0, norms_B1, 1).astype(np.float32)
    return np.asarray(units_BD, np.float32)


def look_into(
    units_BD: FloatArray, clusters_CD: FloatArray, alpha: float, beam: int
) -> tuple[IntArray, FloatArray]:
    """The beam of each query, by w_c . x / |x|, and s_c = min(1, alpha softmax_c(w_c . x / |x|)).

    Clusters that are cut off at 1 are alike for their labels, but not for the choice of the beam.

    Args:
        units_BD: float32 [B, D], of length 1 each.
        clusters_CD: float32 [C, D].
        alpha: What the softmax is multiplied with.
        beam: J; where it is above C, all clusters are looked into.

    Returns:
        int64 [B, J], in no order, and float32 [B, J] (eq. (1) of the paper).
    """
    shares_BC = _softmax(units_BD, clusters_CD)
    clusters_BJ = best_clusters(shares_BC, beam)
    scores_BJ = np.take_along_axis(shares_BC, clusters_BJ, axis=1) * np.float32(alpha)
    return clusters_BJ, np.minimum(scores_BJ, 1, out=scores_BJ)


def _softmax(units_BD: FloatArray, clusters_CD: FloatArray) -> FloatArray:
    """float32 [B, C], by one dot product a pair: the bits of a matrix product vary with B."""
    shares_BC = np.empty((len(units_BD), len(clusters_CD)), np.float32)
    step = max(1, _BLOCK_FLOATS // clusters_CD.shape[1])
    for start in range(0, len(clusters_CD), step):
        block_CD = clusters_CD[start : start + step]
        np.vecdot(block_CD, units_BD[:, None], out=shares_BC[:, start : start + step])
    shares_BC -= shares_BC.max(axis=1, keepdims=True)
    np.exp(shares_BC, out=shares_BC)
    shares_BC /= shares_BC.sum(axis=1, keepdims=True)
    return shares_BC


def best_clusters(scores_BC: FloatArray, beam: int) -> IntArray:
    """int64 [B, beam], the clusters with the highest scores, in no order."""
    if beam >= scores_BC.shape[1]:
        return np.tile(np.arange(scores_BC.shape[1]), (len(scores_BC), 1))
    keys_BC = _keys(scores_BC, np.arange(scores_BC.shape[1]))
    keys_BC.partition(scores_BC.shape[1] - beam, axis=1)
    clusters_BJ: IntArray = keys_BC[:, -beam:] & _EDGE_MASK
    return clusters_BJ


def best_edges(
    edges: Edges,
    scores_BJ: FloatArray,
    clusters_BJ: IntArray,
    count: int,
    allowed_L: NDArray[np.bool_] | None = None,
) -> IntArray:
    """The last edges of the best paths, one a label: int64 [B, count], best first.

    Paths of one score stand in falling order of edge. Where there are fewer labels with a score
    above 0, -1 follows. What a query gets depends on nothing but its row.

    Args:
        edges: Of all clusters.
        scores_BJ: float32 [B, J], s_c of the clusters to look into.
        clusters_BJ: int64 [B, J], these clusters, distinct in a row.
        count: Labels wanted.
        allowed_L: bool [L], the only labels to find; None for all.
    """
    best_BK = np.full((len(scores_BJ), count), -1, np.int64)
    step = max(1, _BLOCK_PATHS // max(1, clusters_BJ.shape[1] * edges.widest))
    for start in range(0, len(scores_BJ), step):
        block = slice(start, start + step)
        keys_BE = _path_keys(edges, scores_BJ[block], clusters_BJ[block], allowed_L)
        _keep_best(keys_BE, edges.labels, best_BK[block])
    return best_BK


def _path_keys(
    edges: Edges,
    scores_BJ: FloatArray,
    clusters_BJ: IntArray,
    allowed_L: NDArray[np.bool_] | None,
) -> IntArray:
    """int64 [B, J * W]: score and edge of each path in one number; below 2^32 there is none."""
    starts_BJ = edges.indptr[clusters_BJ]
    lengths_BJ1 = (edges.indptr[clusters_BJ + 1] - starts_BJ)[:, :, None]
    places_W = np.arange(edges.widest)
    edges_BJW = starts_BJ[:, :, None] + np.minimum(places_W, np.maximum(lengths_BJ1 - 1, 0))
    np.minimum(edges_BJW, len(edges.labels) - 1, out=edges_BJW)
    paths_BJW = edges.weights.take(edges_BJW)
    paths_BJW *= scores_BJ[:, :, None]
    paths_BJW *= places_W < lengths_BJ1
    if allowed_L is not None:
        paths_BJW *= allowed_L[edges.labels.take(edges_BJW)]
    return _keys(paths_BJW, edges_BJW).reshape(len(scores_BJ), -1)


def _keys(scores: FloatArray, places: IntArray) -> IntArray:
    """Numbers that order as (score, place) do; scores are at least 0 and so order as their bits."""
    keys: IntArray = np.ascontiguousarray(scores).view(np.int32).astype(np.int64)
    keys <<= _LOW_BITS
    keys |= places
    return keys


def _keep_best(keys_BE: IntArray, labels: NDArray[np.int32], best_BK: IntArray) -> None:
    """Writes the edges of the best keys, one a label, into best_BK."""
    wanted, num_paths = best_BK.shape[1], keys_BE.shape[1]
    # A label may be reached over several clusters: look at more paths until there are enough.
    num_seen = min(_FIRST_LOOK * wanted, num_paths)
    while True:
        top_BM = np.partition(keys_BE, num_paths - num_seen, axis=1)[:, num_paths - num_seen :]
        top_BM = np.sort(top_BM, axis=1)[:, ::-1]
        is_first_BM = _first_of_each_label(top_BM, labels)
        places_BM = np.cumsum(is_first_BM, axis=1)
        may_miss_B = (places_BM[:, -1] < wanted) & (top_BM[:, -1] > _EDGE_MASK)
        if num_seen == num_paths or not may_miss_B.any():
            break
        num_seen = min(2 * num_seen, num_paths)
    rows, columns = np.nonzero(is_first_BM & (places_BM <= wanted))
    best_BK[rows, places_BM[rows, columns] - 1] = top_BM[rows, columns] & _EDGE_MASK


def _first_of_each_label(keys_BM: IntArray, labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Bool [B, M]: whether a path is there, and the first of its row to its label."""
    by_label_BM = labels.take(keys_BM & _EDGE_MASK).astype(np.int64) << _LOW_BITS
    # Paths that are not there stand last, so that they hide none that is.
    by_label_BM |= np.arange(keys_BM.shape[1])
    by_label_BM.sort(axis=1)
    labels_BM = by_label_BM >> _LOW_BITS
    changes_BM = np.ones(keys_BM.shape, np.bool_)
    np.not_equal(labels_BM[:, 1:], labels_BM[:, :-1], out=changes_BM[:, 1:])
    is_first_BM = np.zeros(keys_BM.shape, np.bool_)
    np.put_along_axis(is_first_BM, by_label_BM & _EDGE_MASK, changes_BM, axis=1)
    return is_first_BM & (keys_BM > _EDGE_MASK)
