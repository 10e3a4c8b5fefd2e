"""A learned index as inverted lists of FAISS, for those who serve with FAISS alone.

Shapes: B queries, C clusters, E edges, K hits, L labels, D embedding width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from motherlode.core.index.faiss import faiss, search_lists
from motherlode.core.index.learned import LearnedIndex
from motherlode.core.index.rescoring import best_of, rescore
from motherlode.core.queries import FloatArray, IntArray


def export_lists(index: LearnedIndex, labels_LD: FloatArray) -> Any:
    """An `IndexIVFFlat` whose coarse quantiser and assignment are the learned ones.

    FAISS has no place for the weights of edges: where the learned index keeps the labels with the
    best paths, its lists keep all labels of `nprobe` clusters. A label of several clusters is in
    several lists, so that a search finds it several times; see `search_exported_lists`.

    Args:
        index: To be exported.
        labels_LD: float32 [L, D], those it was built over.
    """
    graph = index.graph
    quantizer = faiss.IndexFlatIP(index.width)
    quantizer.add(np.ascontiguousarray(graph.clusters_CD))
    metric = faiss.METRIC_INNER_PRODUCT
    lists = faiss.IndexIVFFlat(quantizer, index.width, graph.num_clusters, metric)
    # FAISS takes bare pointers: the arrays must have names, or they are gone before it reads them.
    rows_E, clusters_E = graph.edges.labels.astype(np.int64), graph.clusters_of_edges()
    vectors_ED = labels_LD[rows_E]
    lists.add_core(len(rows_E), *map(faiss.swig_ptr, (vectors_ED, rows_E, clusters_E)))
    return lists


def search_exported_lists(
    lists: Any, labels_LD: FloatArray, queries_BD: FloatArray, k: int, nprobe: int
) -> tuple[IntArray, FloatArray]:
    """The best k labels in the `nprobe` lists of each query, each once.

    Args:
        lists: From `export_lists`.
        labels_LD: float32 [L, D].
        queries_BD: float32 [B, D].
        k: Hits wanted.
        nprobe: Lists looked into, at most C.

    Returns:
        Rows int64 and scores float32, both [B, K], best first; -1 and -inf where there are no more.
    """
    most_copies = min(nprobe, _most_lists_of_a_label(lists))
    rows_BC = np.sort(search_lists(lists, queries_BD, k * most_copies, nprobe, None), axis=1)
    rows_BC[:, 1:][rows_BC[:, 1:] == rows_BC[:, :-1]] = -1
    return best_of(rows_BC, rescore(queries_BD, labels_LD, rows_BC), k)


def _most_lists_of_a_label(lists: Any) -> int:
    inverted = lists.invlists
    parts = [
        faiss.rev_swig_ptr(inverted.get_ids(i), inverted.list_size(i)).copy()
        for i in range(lists.nlist)
        if inverted.list_size(i)
    ]
    return int(np.bincount(np.concatenate(parts)).max())
