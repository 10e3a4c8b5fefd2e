"""Three ways to one answer: offline scoring, the retriever and the server give the same bits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.scoring import score_file
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_tiny
from tests.support.scoring import request, rows, write_jsonl
from tests.support.servers import running_server

NUM_ROWS = 60
K = 7


MODELS = {
    "exact": {"index_kind": "exact"},
    "ivf_flat": {"index_kind": "ivf_flat"},
    "hnsw": {"index_kind": "hnsw"},
    "exact-corrected": {"index_kind": "exact", "ranker_kind": "tree_correction"},
    "hnsw-corrected": {"index_kind": "hnsw", "ranker_kind": "tree_correction"},
    "scan": {"index_kind": "scan"},
    "ivf": {"index_kind": "ivf"},
    "learned-classified": {"index_kind": "learned", "ranker_kind": "sparse_linear"},
    "hnsw-classified": {"index_kind": "hnsw", "ranker_kind": "sparse_linear"},
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    publish_tiny(path, **request.param)
    return path


@pytest.fixture(scope="module")
def queries() -> list[str]:
    generator = np.random.default_rng(0)
    words = [*(f"topic{i}" for i in range(50)), "filler", "unknown", ""]
    return [" ".join(generator.choice(words, 4)) for _ in range(NUM_ROWS - 1)] + ["unknown"]


def scored(repository: Path, queries: list[str], **sizes: int) -> list[tuple[list[int], bytes]]:
    with TemporaryDirectory() as folder:
        source = write_jsonl(Path(folder) / "queries.jsonl", queries)
        score_file(request(repository, source, Path(folder) / "output", k=K, **sizes))
        return [
            (row["labels"], np.array(row["scores"], np.float32).tobytes())
            for row in rows(Path(folder) / "output")
        ]


def hits(top: TopK) -> list[tuple[list[int], bytes]]:
    return [(top.row(i)[0].tolist(), top.row(i)[1].tobytes()) for i in range(len(top))]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batch_size=st.integers(1, 80), rows_per_part=st.integers(1, 80))
def test_a_scored_file_has_the_bits_of_the_retriever_for_any_size_of_batch_and_part(
    repository: Path, queries: list[str], batch_size: int, rows_per_part: int
) -> None:
    retriever = Retriever.load(Repository(repository), "tiny")
    expected = hits(retriever.top_k(TextQueries(queries), K))
    actual = scored(repository, queries, batch_size=batch_size, rows_per_part=rows_per_part)
    assert actual == expected


def test_a_scored_file_has_the_bits_of_queries_asked_one_at_a_time(
    repository: Path, queries: list[str]
) -> None:
    retriever = Retriever.load(Repository(repository), "tiny")
    expected = [hits(retriever.top_k(TextQueries([query]), K))[0] for query in queries]
    assert scored(repository, queries) == expected


@pytest.mark.asyncio
@pytest.mark.parametrize("queries_per_call", [1, 7, NUM_ROWS])
async def test_a_scored_file_has_the_bits_of_the_server_for_any_size_of_call(
    repository: Path, queries: list[str], queries_per_call: int
) -> None:
    calls = [
        queries[start : start + queries_per_call] for start in range(0, NUM_ROWS, queries_per_call)
    ]
    async with running_server(repository) as server:
        # Together, so that the server batches them as it likes.
        responses = await asyncio.gather(*(server.ask(*texts, k=K) for texts in calls))
    served = [hit for response in responses for hit in hits(top_of(response))]
    assert scored(repository, queries) == served
    assert {response.bundle_digest for response in responses} == {
        Retriever.load(Repository(repository), "tiny").digest
    }


def top_of(response: pb.TopKResponse) -> TopK:
    return TopK(
        np.array(response.labels, np.int64),
        np.array(response.scores, np.float32),
        np.array(response.row_counts, np.int64),
    )
