from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motherlode.core.index import ExactConfig, LabelFilter, build_index, measure_recall
from motherlode.core.queries import FloatArray
from tests.support.embeddings import best_by_sorting, clustered, unit


def assert_exact(
    labels_LD: FloatArray,
    queries_BD: FloatArray,
    k: int,
    label_filter: LabelFilter | None = None,
) -> None:
    index = build_index(ExactConfig(), labels_LD, seed=0)
    top = index.search(queries_BD, k, filter=label_filter)
    allowed = label_filter and label_filter.allowed_rows(len(labels_LD))
    best, scores = best_by_sorting(queries_BD, labels_LD, k, allowed)
    assert top.labels.tolist() == best.ravel().tolist()
    assert top.scores.tobytes() == scores.tobytes()


@pytest.mark.parametrize("num_queries", [1, 2, 3, 30])
@pytest.mark.parametrize("copies", [2, 30, 300])
def test_the_smallest_of_many_equal_labels_are_found(num_queries, copies):
    labels_LD, queries_BD = clustered(900 // copies, 16)
    repeated_LD = np.tile(labels_LD, (copies, 1))
    assert_exact(repeated_LD, queries_BD[:num_queries], 10)


@pytest.mark.parametrize("num_queries", [1, 3, 40])
def test_labels_a_rounding_apart_stand_in_the_order_of_their_scores(num_queries):
    # FAISS adds in another order, so its order of these labels is noise.
    generator = np.random.default_rng(0)
    label_D = unit(generator.standard_normal((1, 64)))
    noise_LD = 1 + generator.uniform(-3e-7, 3e-7, (2000, 64))
    labels_LD = (label_D * noise_LD).astype(np.float32)
    queries_BD = unit(label_D + 0.1 * generator.standard_normal((num_queries, 64)))
    assert_exact(labels_LD, queries_BD, 10)


@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])
def test_labels_of_very_uneven_lengths_are_in_exact_order(spread):
    labels_LD, queries_BD = clustered(2000, 32, spread=spread)
    assert_exact(labels_LD, queries_BD, 12)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e20, 1e30])
def test_queries_of_extreme_lengths_are_in_exact_order(scale):
    labels_LD, queries_BD = clustered(1500, 16)
    assert_exact(labels_LD, queries_BD[:20] * np.float32(scale), 5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_labels=st.integers(1, 300),
    width=st.sampled_from([1, 2, 7, 16, 33]),
    num_queries=st.sampled_from([1, 2, 3, 8]),
    k=st.integers(1, 320),
    mode=st.sampled_from(["allow", "deny", None]),
)
def test_small_whole_numbers_full_of_ties_are_in_exact_order(
    seed, num_labels, width, num_queries, k, mode
):
    generator = np.random.default_rng(seed)
    labels_LD = generator.integers(-2, 3, (num_labels, width)).astype(np.float32)
    queries_BD = generator.integers(-2, 3, (num_queries, width)).astype(np.float32)
    rows = np.flatnonzero(generator.random(num_labels) < 0.5)
    label_filter = None if mode is None else LabelFilter(rows, mode)
    if label_filter is None or len(label_filter.allowed_rows(num_labels)):
        assert_exact(labels_LD, queries_BD, k, label_filter)


def test_a_filter_of_more_labels_than_fit_a_block_is_exact():
    labels_LD, queries_BD = clustered(70_000, 4)
    kept = np.flatnonzero(np.arange(70_000) % 7)
    assert_exact(labels_LD, queries_BD[:4], 6, LabelFilter(kept, "allow"))


def test_memory_of_an_exact_index_is_that_of_the_labels_alone():
    labels_LD, _ = clustered(100, 8)
    index = build_index(ExactConfig(), labels_LD, seed=0)
    assert (index.predicted_bytes, index.factory) == (0, "Flat")


def test_recall_counts_labels_of_equal_score_as_found():
    labels_LD, queries_BD = clustered(50, 8)
    repeated_LD = np.tile(labels_LD, (4, 1))
    index = build_index(ExactConfig(), repeated_LD, seed=0)
    assert measure_recall(index, repeated_LD, queries_BD, 3) == 1.0
    other = build_index(ExactConfig(), -repeated_LD, seed=0)
    assert measure_recall(other, repeated_LD, queries_BD, 3) < 1.0
