"""A call that runs in parts gets the bits that it would get in one piece."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.index import LabelFilter
from motherlode.core.queries import DenseQueries, EmbeddingQueries, Queries, TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.batcher import Batcher
from motherlode.server.call import Answer, Call
from motherlode.server.metrics import Meters
from motherlode.server.queue_limits import QueueLimits
from motherlode.server.slot import ServedVersion
from tests.support.bundles import publish_dense, publish_tiny

KINDS = ["text", "sparse", "embeddings", "features"]
INDEXES = ["exact", "hnsw", "ivf_flat", "scan", "learned"]
NUM_QUERIES = 70


def retriever_of(folder: Path, kind: str, index_kind: str) -> Retriever:
    if kind == "features":
        publish_dense(folder, "model")
    else:
        publish_tiny(folder, "model", index_kind=index_kind)
    return Retriever.load(Repository(folder), "model")


def queries_of(retriever: Retriever, kind: str) -> Queries:
    generator = np.random.default_rng(0)
    if kind == "features":
        shape = NUM_QUERIES, retriever.num_features
        return DenseQueries(generator.standard_normal(shape, np.float32))
    if kind == "embeddings":
        return EmbeddingQueries(
            generator.standard_normal((NUM_QUERIES, retriever.width), np.float32)
        )
    # Some have several known words, some none.
    texts = TextQueries(
        [f"topic{i} topic{i * 3} filler" if i % 7 else "?" for i in range(NUM_QUERIES)]
    )
    return texts if kind == "text" else retriever.path.featurizer.transform(texts)


async def answer_in_parts(
    retriever: Retriever, queries: Queries, label_filter: LabelFilter | None, max_batch: int
) -> Answer:
    meters = Meters()
    batcher = Batcher(meters, QueueLimits(1000, 10**9, 1e6, max_batch), max_batch_bytes=10**9)
    batcher.start()
    try:
        served = ServedVersion(retriever, meters.version("model", 1))
        future = asyncio.get_running_loop().create_future()
        return await batcher.submit(Call(served, queries, 5, future, label_filter))
    finally:
        batcher.stop()


@pytest.mark.parametrize("is_filtered", [False, True], ids=["all", "filtered"])
@pytest.mark.parametrize(
    ("kind", "index_kind"),
    [(kind, "exact") for kind in KINDS] + [("text", index_kind) for index_kind in INDEXES[1:]],
)
@pytest.mark.asyncio
async def test_a_call_in_parts_is_the_call_in_one_piece(
    tmp_path: Path, kind: str, index_kind: str, is_filtered: bool
) -> None:
    retriever = retriever_of(tmp_path, kind, index_kind)
    queries = queries_of(retriever, kind)
    label_filter = LabelFilter(np.arange(0, 50, 3), "deny") if is_filtered else None
    whole = retriever.top_k(queries, 5, filter=label_filter)
    for max_batch in (1, 7, 64):
        top = (await answer_in_parts(retriever, queries, label_filter, max_batch)).top
        assert np.array_equal(top.counts, whole.counts)
        assert np.array_equal(top.labels, whole.labels)
        assert top.scores.tobytes() == whole.scores.tobytes()
