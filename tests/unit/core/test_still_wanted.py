"""Queries that nobody waits for once they are encoded, and what a batch takes in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.queries import DenseQueries, EmbeddingQueries, Queries, TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from tests.support.bundles import publish_dense, publish_tiny

# The third has no known feature.
TEXTS = TextQueries(["topic1 filler", "topic2", "?", "topic4", "topic5 topic6"])
DENSE = DenseQueries(np.eye(5, 6, dtype=np.float32))


def rows_of(top: TopK) -> list[list[tuple[int, float]]]:
    return [list(zip(*map(np.ndarray.tolist, top.row(i)), strict=True)) for i in range(len(top))]


@pytest.fixture(params=["text", "ranked text", "dense", "embeddings"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Retriever, Queries]:
    if request.param == "dense":
        publish_dense(tmp_path, "model")
        return Retriever.load(Repository(tmp_path), "model"), DENSE
    ranker_kind = "tree_correction" if request.param == "ranked text" else None
    publish_tiny(tmp_path, "model", ranker_kind=ranker_kind)
    retriever = Retriever.load(Repository(tmp_path), "model")
    if request.param == "embeddings":
        return retriever, EmbeddingQueries(retriever.path.encode(TEXTS))
    return retriever, TEXTS


@pytest.mark.parametrize("kept", [[1, 3], [0, 2, 4], [0], []])
def test_the_wanted_queries_get_their_answers_and_the_others_none(
    case: tuple[Retriever, Queries], kept: list[int]
) -> None:
    retriever, queries = case
    kept_B = np.isin(np.arange(5), kept)
    whole = rows_of(retriever.top_k(queries, 4))
    part = rows_of(retriever.top_k(queries, 4, still_wanted=lambda: kept_B))
    assert part == [row if i in kept else [] for i, row in enumerate(whole)]


def test_where_all_are_wanted_nothing_changes(case: tuple[Retriever, Queries]) -> None:
    retriever, queries = case
    whole = rows_of(retriever.top_k(queries, 4))
    assert rows_of(retriever.top_k(queries, 4, still_wanted=lambda: None)) == whole


def test_it_is_asked_once(tmp_path: Path) -> None:
    publish_tiny(tmp_path, "model")
    retriever = Retriever.load(Repository(tmp_path), "model")
    asked: list[None] = []
    retriever.top_k(TEXTS, 4, still_wanted=lambda: asked.append(None))
    assert len(asked) == 1
    asked.clear()
    embeddings = EmbeddingQueries(np.ones((2, retriever.width), np.float32))
    retriever.top_k(embeddings, 4, still_wanted=lambda: asked.append(None))
    assert len(asked) == 1


@pytest.mark.parametrize("index_kind", ["exact", "hnsw", "scan"])
def test_a_batch_takes_no_more_memory_than_is_said(tmp_path: Path, index_kind: str) -> None:
    publish_tiny(tmp_path, "model", num_labels=3000, index_kind=index_kind)
    retriever = Retriever.load(Repository(tmp_path), "model")
    queries_BD = np.random.default_rng(0).standard_normal((64, retriever.width), np.float32)
    # What does not grow with the batch is there in half of it already.
    few, many = (
        peak_bytes(retriever, EmbeddingQueries(queries_BD[:num_queries]))
        for num_queries in (32, 64)
    )
    assert few < many <= few + 32 * retriever.bytes_per_query(2000)


def peak_bytes(retriever: Retriever, queries: EmbeddingQueries) -> int:
    """The most memory that NumPy asks for while 2,000 labels are found for each query."""
    tracemalloc.start()
    try:
        retriever.top_k(queries, 2000)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
