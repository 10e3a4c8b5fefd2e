"""Approximate indexes against exact search, on clustered labels of even and uneven lengths."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from motherlode.core.index import (
    ExactConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfFlatConfig,
    LabelFilter,
    LabelIndex,
    ScanConfig,
    build_index,
    measure_recall,
)
from motherlode.core.queries import FloatArray
from tests.support.embeddings import clustered

NUM_LABELS, WIDTH = 6000, 48
HNSW = HnswConfig(num_neighbors=16, ef_search=64)
# Uneven lists hold few labels each, so a fixed number of them shows fewer labels.
IVF, MORE_IVF = IvfFlatConfig(nprobe=32), IvfFlatConfig(nprobe=96)
HNSW_SQ = HnswConfig(num_neighbors=16, ef_search=64, codes="sq8")
IVF_PQ = IvfConfig(nprobe=96, codes="pq", refine=10)
IVF_FAST = IvfConfig(nprobe=96, codes="pq_fast_scan", refine=20)
IVF_SQ, IVF_BITS = IvfConfig(nprobe=96, codes="sq8"), IvfConfig(nprobe=96, codes="rabitq")
SQ, FAST = ScanConfig(codes="sq8"), ScanConfig(codes="pq_fast_scan", refine=20)
BITS = ScanConfig(codes="rabitq", refine=60)


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
        (HNSW_SQ, 0.0, 0.0, 0.97),
        (HNSW_SQ, 0.6, 1.0, 0.93),
        (SQ, 0.0, 0.0, 0.99),
        (SQ, 0.6, 1.0, 0.99),
        (FAST, 0.0, 0.0, 0.95),
        (FAST, 0.6, 1.0, 0.8),
        (BITS, 0.0, 0.0, 0.8),
        (BITS, 0.6, 0.0, 0.8),
        (IVF_SQ, 0.0, 0.0, 0.95),
        (IVF_SQ, 0.6, 0.0, 0.85),
        (IVF_PQ, 0.0, 0.0, 0.95),
        (IVF_PQ, 0.6, 0.0, 0.85),
        (IVF_FAST, 0.0, 0.0, 0.95),
        (IVF_FAST, 0.6, 0.0, 0.8),
        (IVF_BITS, 0.0, 0.0, 0.8),
        (IVF_BITS, 0.6, 0.0, 0.8),
    ],
)
def test_approximate_indexes_find_most_of_the_ten_best_labels(config, spread, shared, at_least):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=spread, shared=shared)
    index = build_index(config, labels_LD, seed=0)
    assert measure_recall(index, labels_LD, queries_BD, 10) >= at_least


@pytest.mark.parametrize(
    "config",
    [HNSW, IVF, HNSW_SQ, SQ, FAST, BITS, IVF_SQ, IVF_PQ],
    ids=lambda config: f"{config.kind} {getattr(config, 'codes', '')}",
)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01])
def test_a_filter_costs_no_recall(config: IndexConfig, share: float):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=0.2)
    index = built(config, 0.2)
    exact = build_index(ExactConfig(), labels_LD, seed=0)
    unfiltered = measure_recall(index, labels_LD, queries_BD, 10)
    for rows in filters(labels_LD, share):
        label_filter = LabelFilter(rows, "allow")
        best_BK = exact.search(queries_BD, 10, filter=label_filter).scores.reshape(-1, 10)
        found_BK = index.search(queries_BD, 10, filter=label_filter).scores.reshape(-1, 10)
        assert (found_BK >= best_BK[:, -1:]).mean() >= unfiltered - 0.03


@lru_cache
def built(config: IndexConfig, spread: float) -> LabelIndex:
    """An index over labels that spread, built once for all tests."""
    labels_LD, _ = clustered(NUM_LABELS, WIDTH, spread=spread)
    return build_index(config, labels_LD, seed=0)


def filters(labels_LD: FloatArray, share: float) -> list[np.ndarray]:
    """A share of the labels: drawn, and those furthest in one direction, which lie together."""
    count = int(share * len(labels_LD))
    drawn = np.random.default_rng(0).choice(len(labels_LD), count, replace=False)
    together = np.argsort(labels_LD[:, 0])[:count]
    return [np.sort(drawn), np.sort(together)]


def test_scores_of_all_families_are_the_same_bits():
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=0.4)
    exact = build_index(ExactConfig(), labels_LD, seed=0).search(queries_BD, 50)
    for config in (HNSW, IVF, HNSW_SQ, SQ, FAST, BITS, IVF_PQ):
        found = build_index(config, labels_LD, seed=0).search(queries_BD, 50)
        for i in range(len(queries_BD)):
            scores = dict(zip(*map(np.ndarray.tolist, exact.row(i)), strict=True))
            labels, found_scores = found.row(i)
            shared = [j for j, label in enumerate(labels.tolist()) if label in scores]
            assert shared
            assert [scores[labels[j]] for j in shared] == found_scores[shared].tolist()


@pytest.mark.parametrize("spread", [0.0, 0.6])
@pytest.mark.parametrize("codes", ["pq", "pq_fast_scan", "rabitq"])
def test_more_candidates_find_no_fewer_labels(codes, spread):
    labels_LD, queries_BD = clustered(NUM_LABELS, WIDTH, spread=spread)
    recalls = []
    for refine in (1, 4, 40):
        config = IvfConfig(nprobe=96, codes=codes, refine=refine)
        index = build_index(config, labels_LD, seed=0)
        recalls.append(measure_recall(index, labels_LD, queries_BD, 10))
    assert recalls == sorted(recalls)
    assert recalls[-1] > recalls[0]
