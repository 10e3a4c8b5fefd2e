"""The learned index: what it refuses, and what becomes of labels that are added."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from motherlode.core.errors import ConfigError
from motherlode.core.index import (
    ClusterGraph,
    IndexConfig,
    LearnedConfig,
    LearnedIndex,
    build_index,
    load_index,
)
from motherlode.core.index.learned import best_rows
from motherlode.core.index.paths import Edges, best_edges
from tests.support.embeddings import clustered
from tests.support.learned_index import new_graph

LABELS_LD, _ = clustered(120, 6)
GRAPH = new_graph(LABELS_LD, 10, seed=0)
CONFIG = LearnedConfig(beam=3, shortlist=40)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"num_clusters": 0}, "num_clusters"),
        ({"labels_per_cluster": 0}, "labels_per_cluster"),
        ({"beam": 0}, "beam"),
        ({"shortlist": 0}, "shortlist"),
        ({"alpha": 0.5}, "alpha"),
        ({"nlist": 5}, "nlist"),
    ],
)
def test_wrong_settings_are_refused(settings, field):
    with pytest.raises(ValidationError, match=field):
        TypeAdapter(IndexConfig).validate_python({"kind": "learned", **settings})


def test_label_embeddings_alone_make_no_learned_index():
    with pytest.raises(ConfigError, match=r"index\.kind: expected a kind that label embeddings"):
        build_index(CONFIG, LABELS_LD, seed=0)


def test_a_beam_of_more_clusters_than_there_are_is_refused():
    with pytest.raises(ConfigError, match=r"index\.beam: expected at most 10"):
        LearnedIndex.build(LearnedConfig(beam=11), LABELS_LD, GRAPH)


def with_edges(**changes: object) -> ClusterGraph:
    return dataclasses.replace(GRAPH, edges=dataclasses.replace(GRAPH.edges, **changes))


NUM_EDGES = len(GRAPH.edges.labels)
INDPTR, LABELS, WEIGHTS = GRAPH.edges.indptr, GRAPH.edges.labels, GRAPH.edges.weights


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (dataclasses.replace(GRAPH, clusters_CD=GRAPH.clusters_CD[:, :5]), "clusters: shape"),
        (dataclasses.replace(GRAPH, clusters_CD=GRAPH.clusters_CD * np.nan), "clusters: expected"),
        (dataclasses.replace(GRAPH, clusters_CD=GRAPH.clusters_CD[:9]), "offsets: expected one"),
        (with_edges(indptr=INDPTR[::-1].copy()), "offsets: expected one a cluster, from 0"),
        (with_edges(indptr=np.r_[0, 30, 20, INDPTR[3:]]), "offsets: expected ascending"),
        (with_edges(weights=WEIGHTS * 0), "weights: expected above 0, at most 1"),
        (with_edges(weights=WEIGHTS + 1), "weights: expected above 0, at most 1"),
        (with_edges(weights=WEIGHTS * np.nan), "weights: expected above 0, at most 1"),
        (with_edges(labels=LABELS - 1), "labels: expected rows below 120"),
        (with_edges(labels=LABELS + 1), "labels: expected rows below 120"),
        (with_edges(labels=np.where(LABELS == 7, 8, LABELS)), "some are in none"),
    ],
)
def test_a_graph_that_cannot_be_searched_is_refused(graph, reason):
    with pytest.raises(ValueError, match=reason):
        LearnedIndex.build(CONFIG, LABELS_LD, graph)


def test_a_label_stands_at_most_once_in_a_cluster():
    graph = ClusterGraph.from_edges(
        GRAPH.clusters_CD,
        np.append(GRAPH.clusters_of_edges(), 0),
        np.append(LABELS.astype(np.int64), LABELS[0]),
        np.append(WEIGHTS, np.float32(0.1)),
    )
    with pytest.raises(ValueError, match="at most once in a cluster"):
        graph.check(120, 6)


def test_of_two_labels_of_a_cluster_the_heavier_stands_first():
    for start, end in pairwise(INDPTR):
        assert (np.diff(WEIGHTS[start:end]) <= 0).all()


def test_a_new_label_stands_in_the_cluster_that_its_embedding_looks_into_first():
    index = LearnedIndex.build(CONFIG, LABELS_LD, GRAPH)
    new_ND = 3 * LABELS_LD[[5, 90]]
    larger = index.with_labels(np.concatenate([LABELS_LD, new_ND]))
    assert larger.num_labels == 122
    # As long as three of the others: first for a query that points its way.
    top = larger.search(LABELS_LD[[5, 90]], 1)
    assert top.labels.tolist() == [120, 121]
    assert edges_below_120(larger.graph) == edges_below_120(GRAPH)


def edges_below_120(graph: ClusterGraph) -> set[tuple[int, int, float]]:
    """Cluster, label and weight of the edges to the labels that were there first."""
    edges = graph.clusters_of_edges(), graph.edges.labels, graph.edges.weights
    return {edge for edge in zip(*map(np.ndarray.tolist, edges), strict=True) if edge[1] < 120}


def test_no_new_labels_change_nothing():
    index = LearnedIndex.build(CONFIG, LABELS_LD, GRAPH)
    assert index.with_labels(LABELS_LD).graph is index.graph


def test_arrays_of_a_loaded_index_cannot_be_changed(tmp_path: Path):
    path = tmp_path / "index.faiss"
    LearnedIndex.build(CONFIG, LABELS_LD, GRAPH).save(path)
    for mmap in (True, False):
        index = load_index(CONFIG, path, LABELS_LD, mmap=mmap)
        assert isinstance(index, LearnedIndex)
        edges = index.graph.edges
        for array in (index.graph.clusters_CD, edges.indptr, edges.labels, edges.weights):
            assert not array.flags.writeable


def test_paths_of_many_clusters_to_the_same_labels_do_not_crowd_out_others():
    # Ten clusters with the same ten labels at the head: a first look sees these alone.
    indptr = np.arange(0, 10 * 12 + 1, 12)
    labels = np.concatenate([[*range(10), 10 + 2 * c, 11 + 2 * c] for c in range(10)])
    weights = np.tile(np.r_[np.ones(10), 0.1, 0.1].astype(np.float32), 10)
    edges = Edges(indptr, labels.astype(np.int32), weights)
    found = best_edges(edges, np.ones((1, 10), np.float32), np.arange(10)[None], 25)
    assert len(set(labels[found[0]].tolist())) == 25


def test_fewer_labels_than_wanted_leave_places_empty():
    edges = Edges(np.array([0, 2, 2]), np.array([0, 1], np.int32), np.ones(2, np.float32))
    found = best_edges(edges, np.array([[0.5, 0.9]], np.float32), np.array([[0, 1]]), 4)
    assert (np.sort(found[0])[:2].tolist(), (found[0] < 0).sum()) == ([-1, -1], 2)


def test_the_best_rows_are_those_of_the_highest_scores_and_of_equal_ones_the_first():
    labels_LD = np.array([[1.0], [-2.0], [1.0], [0.0], [-0.0], [1.0], [3.0]], np.float32)
    queries_BD = np.array([[1.0], [-1.0]], np.float32)
    rows_BK = np.array([[6, 5, 4, 3, 2, 1, 0], [5, 1, 4, -1, 6, -1, 3]])
    best = [sorted(rows) for rows in best_rows(queries_BD, labels_LD, rows_BK, 2).tolist()]
    assert best == [[0, 6], [1, 3]]
    best = [sorted(rows) for rows in best_rows(queries_BD, labels_LD, rows_BK, 6).tolist()]
    assert best == [[0, 2, 3, 4, 5, 6], [-1, 1, 3, 4, 5, 6]]
    assert best_rows(queries_BD, labels_LD, rows_BK, 7) is rows_BK
