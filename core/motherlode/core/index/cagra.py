"""Graphs on a GPU: CAGRA of cuVS proposes where an HNSW graph would on the CPU.

CAGRA is another graph over the same label embeddings, built anew each time an index is placed. Two
builds, and two searches, may differ in what they propose. What is proposed is compared exactly on
the CPU, as always, so a label's score has the same bits.

Shapes: B queries, L labels in all, C candidates, D embedding width.
"""

from __future__ import annotations

import threading
from typing import Any, ClassVar, final

import numpy as np
from typing_extensions import override

from motherlode.core.index.config import HnswConfig
from motherlode.core.index.faiss import faiss
from motherlode.core.index.families import HnswIndex
from motherlode.core.index.graph_form import GRAPH_LIMIT, GraphForm, candidates_kept
from motherlode.core.index.index import MARGIN, LabelEmbeddings, LabelIndex, Shortlist
from motherlode.core.index.rescoring import largest_norm
from motherlode.core.index.vectors import as_long_as_labels, centred
from motherlode.core.queries import FloatArray, IntArray

# What another graph than that of the CPU may miss of the golden hits.
_MAY_MISS = 0.1


@final
class CagraIndex(LabelIndex):
    """Proposes by a CAGRA graph on a GPU what an HNSW graph would propose on the CPU.

    Filters, and more candidates than cuVS keeps, go the way of the index on the CPU.
    """

    kind: ClassVar[str] = "gpu"
    config: HnswConfig

    def __init__(self, index: HnswIndex, device: int, resources: Any) -> None:
        """Builds the graph.

        Args:
            index: On the CPU; kept, not changed.
            device: Number of the GPU.
            resources: FAISS's, of this GPU; they must serve nothing else.

        Raises:
            RuntimeError: As FAISS has it, for instance for a GPU with too little memory.
        """
        super().__init__(index.config, index._index, LabelEmbeddings(index._labels_LD, index._norm))
        self._on_cpu = index
        self._form = graph_form_of(index)
        # A GPU's resources serve one thread at a time, and must live as long as the index.
        self._turn = threading.Lock()
        self._resources = resources
        self._graph = self._built(device)

    def _built(self, device: int) -> Any:
        config = faiss.GpuIndexCagraConfig()
        config.device, config.use_cuvs = device, True
        config.graph_degree = self._form.degree
        config.intermediate_graph_degree = 2 * self._form.degree
        graph = faiss.GpuIndexCagra(self._resources, self.width, faiss.METRIC_INNER_PRODUCT, config)
        # FAISS copies them to the GPU; this copy is not needed any more.
        graph.train(_shortened(self._labels_LD))
        return graph

    @property
    @override
    def gpu_bytes(self) -> int:
        return self._form.size_bytes

    @property
    @override
    def may_miss(self) -> float:
        return _MAY_MISS

    @override
    def _propose(self, queries_BD: FloatArray, count: int, allowed: IntArray | None) -> Shortlist:
        wanted = count + MARGIN + count // 8
        ef_search = self.config.ef_search
        most = min(GRAPH_LIMIT, self.num_labels - 1)
        if allowed is not None or wanted > most or ef_search > GRAPH_LIMIT:
            return self._on_cpu._propose(queries_BD, count, allowed)
        parameters = faiss.SearchParametersCagra()
        parameters.itopk_size = candidates_kept(ef_search, wanted)
        # A query's length does not change the order; queries of length 1 overflow nowhere.
        vectors = as_long_as_labels(queries_BD, 1.0, self.width)
        with self._turn:
            _, rows_BC = self._graph.search(vectors, wanted, params=parameters)
        return Shortlist(_each_once(rows_BC))


def graph_form_of(index: HnswIndex) -> GraphForm:
    """What a graph would be on a GPU."""
    config = index.config
    return GraphForm.of(
        config.num_neighbors, config.ef_search, num_labels=index.num_labels, width=index.width
    )


def _shortened(labels_LD: FloatArray) -> FloatArray:
    """float32 [L, D]: labels less their mean, none longer than 1.

    Neither changes the order of a query's labels. See `HnswIndex` for why the mean is taken off;
    cuVS squares lengths, and the squares of large values have no place in a float32.
    """
    centred_LD = centred(labels_LD)
    norm = largest_norm(centred_LD)
    if norm > 0:
        centred_LD /= np.float32(norm)
    return centred_LD


def _each_once(rows_BC: IntArray) -> IntArray:
    """The same rows in ascending order, with -1 for those that are there already.

    By inner product, CAGRA may give a label twice. Missing candidates are -1, too.
    """
    sorted_BC = np.sort(rows_BC, axis=1)
    is_repeated = sorted_BC[:, 1:] == sorted_BC[:, :-1]
    sorted_BC[:, 1:][is_repeated] = -1
    return sorted_BC
