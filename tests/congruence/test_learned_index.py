"""A learned index against its definition, and against the FAISS lists that it is exported as.

Shapes: B queries, C clusters, L labels.
"""

from __future__ import annotations

import numpy as np
import pytest

from motherlode.core.index import ClusterGraph, LabelFilter, LearnedConfig, LearnedIndex
from motherlode.core.index.exported_lists import export_lists, search_exported_lists
from motherlode.core.index.paths import (
    best_edges,
    look_into,
    unit_queries,
)
from motherlode.core.queries import FloatArray
from tests.support.embeddings import best_by_sorting, clustered
from tests.support.learned_index import new_graph

NUM_LABELS, WIDTH, NUM_CLUSTERS, ALPHA = 700, 16, 32, 6.0
LABELS_LD, QUERIES_BD = clustered(NUM_LABELS, WIDTH, spread=0.2)
GRAPH = new_graph(LABELS_LD, NUM_CLUSTERS, seed=1)


def dense_scores(graph: ClusterGraph, queries_BD: FloatArray, beam: int) -> np.ndarray:
    """y_hat of all labels by eq. (1), (5) and (6) over dense matrices: float64 [B, L]."""
    units_BD = queries_BD / np.linalg.norm(queries_BD, axis=1, keepdims=True)
    logits_BC = (units_BD @ graph.clusters_CD.T).astype(np.float64)
    softmax_BC = np.exp(logits_BC - logits_BC.max(axis=1, keepdims=True))
    softmax_BC /= softmax_BC.sum(axis=1, keepdims=True)
    scores_BC = np.minimum(1, ALPHA * softmax_BC)
    order_BC = np.argsort(-softmax_BC, axis=1, kind="stable")
    np.put_along_axis(scores_BC, order_BC[:, beam:], 0, axis=1)
    weights_CL = np.zeros((graph.num_clusters, NUM_LABELS))
    weights_CL[graph.clusters_of_edges(), graph.edges.labels] = graph.edges.weights
    return (scores_BC[:, :, None] * weights_CL).max(axis=1)


@pytest.mark.parametrize("beam", [1, 3, 10, NUM_CLUSTERS])
@pytest.mark.parametrize("count", [1, 20, 120])
def test_shortlists_are_the_labels_with_the_highest_path_scores(beam, count):
    expected_BL = dense_scores(GRAPH, QUERIES_BD, beam)
    units_BD = unit_queries(QUERIES_BD)
    clusters_BJ, scores_BJ = look_into(units_BD, GRAPH.clusters_CD, ALPHA, beam)
    edges_BK = best_edges(GRAPH.edges, scores_BJ, clusters_BJ, count)
    for b, edges_K in enumerate(edges_BK):
        found = edges_K[edges_K >= 0]
        labels = GRAPH.edges.labels[found]
        assert len(set(labels.tolist())) == len(labels)
        assert len(labels) == min(count, np.count_nonzero(expected_BL[b]))
        best = np.sort(expected_BL[b])[::-1][: len(labels)]
        np.testing.assert_allclose(expected_BL[b][labels], best, rtol=1e-4)


@pytest.mark.parametrize("num_denied", [0, 100])
def test_a_search_ranks_the_allowed_labels_of_the_shortlist_by_inner_products(num_denied):
    index = LearnedIndex.build(LearnedConfig(beam=4, shortlist=60, alpha=ALPHA), LABELS_LD, GRAPH)
    denied = np.sort(np.random.default_rng(2).choice(NUM_LABELS, num_denied, replace=False))
    top = index.search(QUERIES_BD, 10, filter=LabelFilter(denied, "deny"))
    # A filter leaves fewer labels in each cluster, so that more clusters are looked into.
    expected_BL = dense_scores(GRAPH, QUERIES_BD, 6 if num_denied else 4)
    expected_BL[:, denied] = 0
    for b in range(len(QUERIES_BD)):
        # Ties at the end of a shortlist are settled by edge: allow both.
        least = np.sort(expected_BL[b])[-60]
        surely = np.flatnonzero(expected_BL[b] > least * 1.001)
        perhaps = np.flatnonzero(expected_BL[b] > least * 0.999)
        found = top.row(b)[0]
        assert np.isin(found, perhaps).all()
        best, _ = best_by_sorting(QUERIES_BD[b : b + 1], LABELS_LD, 10, perhaps)
        assert np.isin(best[0][np.isin(best[0], surely)], found).all()


def test_with_all_clusters_and_room_for_all_labels_the_answer_is_exact():
    config = LearnedConfig(beam=NUM_CLUSTERS, shortlist=NUM_LABELS)
    index = LearnedIndex.build(config, LABELS_LD, GRAPH)
    best, _ = best_by_sorting(QUERIES_BD, LABELS_LD, 10)
    assert index.search(QUERIES_BD, 10).labels.tolist() == best.ravel().tolist()


@pytest.mark.parametrize("beam", [1, 4, 9])
def test_exported_to_faiss_it_finds_the_same_labels_where_all_of_the_beam_are_kept(beam):
    # No cluster beyond the beam is needed, and no label of the beam is left out.
    config = LearnedConfig(beam=beam, shortlist=NUM_LABELS - 1)
    index = LearnedIndex.build(config, LABELS_LD, GRAPH)
    lists = export_lists(index, LABELS_LD)
    assert (lists.ntotal, lists.nlist) == (len(GRAPH.edges.labels), NUM_CLUSTERS)
    rows_BK, scores_BK = search_exported_lists(lists, LABELS_LD, QUERIES_BD, 8, beam)
    top = index.search(QUERIES_BD, 8)
    assert top.labels.tolist() == rows_BK.ravel().tolist()
    assert top.scores.tobytes() == scores_BK.tobytes()
