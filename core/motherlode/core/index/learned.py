"""The learned index: a query looks into the clusters that training found to hold its labels.

Shapes: B queries, L labels in all, A labels allowed, C clusters, D embedding width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from typing_extensions import override

from motherlode.core.array_file import map_arrays
from motherlode.core.errors import BundleError, ConfigError
from motherlode.core.index.cluster_graph import ClusterGraph
from motherlode.core.index.config import LearnedConfig
from motherlode.core.index.filter import mask_of, num_probes
from motherlode.core.index.index import MARGIN, LabelEmbeddings, LabelIndex, Shortlist
from motherlode.core.index.paths import (
    Edges,
    best_edges,
    look_into,
    unit_queries,
)
from motherlode.core.index.rescoring import rescore
from motherlode.core.index.seal import SEAL_BYTES
from motherlode.core.queries import FloatArray, IntArray

# Name -> type and number of axes.
_ARRAYS = {
    "indptr": ("int64", 1),
    "clusters": ("float32", 2),
    "weights": ("float32", 1),
    "labels": ("int32", 1),
}


@final
class LearnedIndex(LabelIndex):
    """Clusters and edges learned from queries (ELIAS, Gupta et al., NeurIPS 2022).

    A query takes the labels with the best paths over its `beam` best clusters as its shortlist, and
    their inner products decide, as in every index. Each label is in at least one cluster.

    Attributes:
        graph: The clusters and their edges.
    """

    kind: ClassVar[str] = "learned"
    config: LearnedConfig
    graph: ClusterGraph

    @classmethod
    def build(
        cls, config: LearnedConfig, labels_LD: FloatArray, graph: ClusterGraph
    ) -> LearnedIndex:
        """An index of a trained graph.

        Args:
            config: Settings of the search.
            labels_LD: float32 [L, D]; kept, so that it must not change any more.
            graph: Over these labels; kept likewise.

        Raises:
            ValueError: If the embeddings cannot be searched, or the graph does not fit them.
            ConfigError: If the beam is wider than there are clusters.
        """
        labels = LabelEmbeddings.checked(labels_LD)
        graph.check(labels.num_labels, labels.width)
        if config.beam > graph.num_clusters:
            expected = f"at most {graph.num_clusters}, the number of clusters"
            raise ConfigError("index.beam", expected=expected, actual=config.beam)
        return cls._of(config, labels, graph)

    @classmethod
    def _of(
        cls, config: LearnedConfig, labels: LabelEmbeddings, graph: ClusterGraph
    ) -> LearnedIndex:
        index = cls(config, None, labels)
        index.graph = graph
        return index

    @classmethod
    def load(
        cls, config: LearnedConfig, path: Path, labels: LabelEmbeddings, *, mmap: bool
    ) -> LearnedIndex:
        """See `load_index`."""
        indptr, clusters_CD, weights, rows = _read(path, mmap=mmap)
        graph = ClusterGraph(clusters_CD, Edges(indptr, rows, weights))
        try:
            graph.check(labels.num_labels, labels.width)
        except ValueError as error:
            raise BundleError(path, str(error)) from error
        return cls._of(config, labels, graph)

    def with_labels(self, labels_LD: FloatArray) -> LearnedIndex:
        """The index with more labels; see `ClusterGraph.with_labels`.

        Args:
            labels_LD: float32, the embeddings that were there, then the new ones.
        """
        new_ND = labels_LD[self.num_labels :]
        graph = self.graph.with_labels(new_ND, self.num_labels) if len(new_ND) else self.graph
        return LearnedIndex.build(self.config, labels_LD, graph)

    @property
    @override
    def factory(self) -> str:
        return f"IVF{self.graph.num_clusters},Flat"

    @property
    @override
    def predicted_bytes(self) -> int:
        return self.graph.size_bytes

    @override
    def _write(self, path: Path) -> None:
        edges = self.graph.edges
        arrays = (edges.indptr, self.graph.clusters_CD, edges.weights, edges.labels)
        save_file(dict(zip(_ARRAYS, map(np.ascontiguousarray, arrays), strict=True)), path)

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        num_allowed = self.num_labels if allowed is None else len(allowed)
        wanted = max(self.config.shortlist, count + MARGIN)
        beam = num_probes(self.config.beam, self.num_labels, num_allowed)
        is_filtered = num_allowed < self.num_labels
        if wanted >= num_allowed or (is_filtered and beam >= self.graph.num_clusters):
            return self._scan(queries_BD, count, allowed)
        mask_L = mask_of(allowed, self.num_labels)
        clusters_BJ, scores_BJ = look_into(
            unit_queries(queries_BD), self.graph.clusters_CD, self.config.alpha, beam
        )
        edges_BK = best_edges(self.graph.edges, scores_BJ, clusters_BJ, wanted, mask_L)
        rows_BK = self.graph.edges.labels.take(edges_BK).astype(np.int64)
        rows_BK[edges_BK < 0] = -1
        return Shortlist(best_rows(queries_BD, self._labels_LD, rows_BK, count + MARGIN))


def _read(path: Path, *, mmap: bool) -> list[NDArray[Any]]:
    """The arrays of a file, in their order, read-only."""
    arrays = map_arrays(path, num_bytes_behind=SEAL_BYTES)
    found = {name: (array.dtype.name, array.ndim) for name, array in arrays.items()}
    if found != _ARRAYS:
        raise BundleError(path, f"arrays are {found}, expected {', '.join(_ARRAYS)}")
    if mmap:
        return [arrays[name] for name in _ARRAYS]
    copies = [arrays[name].copy() for name in _ARRAYS]
    for copy in copies:
        copy.flags.writeable = False
    return copies


def best_rows(
    queries_BD: FloatArray, labels_LD: FloatArray, rows_BK: IntArray, count: int
) -> IntArray:
    """The `count` rows of each query with the highest scores, ties by row, in no order.

    To put hundreds in order, of which few are wanted, takes longer than to score them.

    Args:
        queries_BD: float32 [B, D].
        labels_LD: float32 [L, D].
        rows_BK: int64 [B, K], rows of labels_LD; -1 where there is none.
        count: Rows wanted; if not below K, all stay.
    """
    if count >= rows_BK.shape[1]:
        return rows_BK
    # Zeros have one sign then: scores order as their bits do, once those of negative ones are
    # turned round.
    bits_BK = (rescore(queries_BD, labels_LD, rows_BK) + np.float32(0)).view(np.int32)
    keys_BK = (bits_BK ^ ((bits_BK >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32
    keys_BK |= np.where(rows_BK < 0, 0, 0xFFFFFFFF - rows_BK)
    keys_BK.partition(keys_BK.shape[1] - count, axis=1)
    low_BK = keys_BK[:, -count:] & 0xFFFFFFFF
    return np.where(low_BK == 0, -1, 0xFFFFFFFF - low_BK)
