"""Approximate indexes against exact search, on clustered labels of even and uneven lengths."""

from __future__ import annotations

import numpy as np
import pytest

from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfFlatConfig,
    LabelFilter,
    build_index,
    measure_recall,
)
from motherlode.core.queries import FloatArray
from tests.support.embeddings import clustered

NUM_LABELS, WIDTH = 6000, 48
HNSW = HnswConfig(num_neighbors=16, ef_search=64)
# Uneven lists hold few labels each, so a fixed number of them shows fewer labels.
IVF, MORE_IVF = IvfFlatConfig(nprobe=32), IvfFlatConfig(nprobe=96)


@pytest.mark.parametrize(
    ("config", "spread", "shared", "at_least"),
    [
        (HNSW, 0.0, 0.0, 0.97),
        (HNSW, 0.2, 0.0, 0.97),
        (HNSW, 0.6, 0.0, 0.97),
        (HNSW, 1.2, 0.0, 0.97),
        (HNSW, 0.2, 1.0, 0.93),
        (HNSW, 0.6, 1.0, 0.93),
        (IVF, 0.0, 0.0, 0.95),
        (IVF, 0.2, 0.0, 0.85),
        (MORE_IVF, 0.6, 0.0, 0.85),
        (MORE_IVF, 1.2, 0.0, 0.9),
    ],
)
def test_approximate_indexes_find_most_of_the_ten_best_labels(config, spread, shared, at_least):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=spread, shared=shared)
    index = build_index(config, labels_LD, seed=0)
    assert measure_recall(index, labels_LD, queries_BD, 10) >= at_least


@pytest.mark.parametrize("config", [HNSW, IVF], ids=lambda config: config.kind)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01])
def test_a_filter_costs_no_recall(config: IndexConfig, share: float):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=0.2)
    index = build_index(config, labels_LD, seed=0)
    exact = build_index(ExactConfig(), labels_LD, seed=0)
    unfiltered = measure_recall(index, labels_LD, queries_BD, 10)
    for rows in filters(labels_LD, share):
        label_filter = LabelFilter(rows, "allow")
        best_BK = exact.search(queries_BD, 10, filter=label_filter).scores.reshape(-1, 10)
        found_BK = index.search(queries_BD, 10, filter=label_filter).scores.reshape(-1, 10)
        assert (found_BK >= best_BK[:, -1:]).mean() >= unfiltered - 0.03


def filters(labels_LD: FloatArray, share: float) -> list[np.ndarray]:
    """A share of the labels: drawn, and those furthest in one direction, which lie together."""
    count = int(share * len(labels_LD))
    drawn = np.random.default_rng(0).choice(len(labels_LD), count, replace=False)
    together = np.argsort(labels_LD[:, 0])[:count]
    return [np.sort(drawn), np.sort(together)]


def test_scores_of_all_families_are_the_same_bits():
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=0.4)
    exact = build_index(ExactConfig(), labels_LD, seed=0).search(queries_BD, 50)
    for config in (HNSW, IVF):
        found = build_index(config, labels_LD, seed=0).search(queries_BD, 50)
        for i in range(len(queries_BD)):
            scores = dict(zip(*map(np.ndarray.tolist, exact.row(i)), strict=True))
            labels, found_scores = found.row(i)
            shared = [j for j, label in enumerate(labels.tolist()) if label in scores]
            assert shared
            assert [scores[labels[j]] for j in shared] == found_scores[shared].tolist()
