"""Recall of an approximate index, measured on the traffic of a real server."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.index import IvfFlatConfig, build_index, measure_recall
from motherlode.core.queries import TextQueries
from motherlode.core.query_path import QueryPath
from motherlode.core.repository import Repository
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_tiny, tiny_draft
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

NUM_LABELS = 400
TEXTS = [f"topic{i} topic{(7 * i + 1) % NUM_LABELS}" for i in range(60)]
EVERYTHING = {"recall_sample_rate": 1.0, "recall_cpu_share": 1.0}
K = 10


def publish_narrow(path: Path, ranker_kind: str | None = None) -> None:
    """A model whose index looks into one list of many, and so misses labels."""
    draft = tiny_draft(0, NUM_LABELS, ranker_kind=ranker_kind)
    index = build_index(IvfFlatConfig(nlist=8, nprobe=1), draft.labels_LD, seed=0)
    stages = QueryPath(draft.featurizer, draft.encoder, index, draft.ranker)
    golden = stages.take_golden(TextQueries(["topic1 filler"]), 1)
    # It promises no recall, which the gate would hold it to.
    narrow = replace(draft, index=index, golden=golden, index_recall={})
    Repository(path).publish("tiny", narrow)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_narrow(tmp_path)
    return tmp_path


def samples(server: RunningServer, outcome: str) -> float:
    return server.metric("search_recall_samples_total", outcome=outcome) or 0.0


async def ask_all(server: RunningServer, **fields: object) -> list[pb.TopKResponse]:
    """Asks one text after the other, each once the one before was compared."""
    answers = []
    for number, text in enumerate(TEXTS, start=1):
        answers.append(await server.ask(text, k=K, **fields))
        await until(lambda number=number: samples(server, "measured") == number)  # type: ignore[misc]
    return answers


def recall_of(server: RunningServer, name: str) -> float | None:
    return server.metric(f"search_recall_{name}", model="tiny", version="1", k=str(K))


async def test_recall_on_traffic_is_the_offline_figure_of_the_same_queries(
    repository: Path,
) -> None:
    async with running_server(repository, **EVERYTHING) as server:
        await ask_all(server)
        retriever = server.current().retriever
        queries_BD = retriever.encode(TextQueries(TEXTS))
        index = retriever.path.index
        expected = measure_recall(index, index.labels.labels_LD, queries_BD, K)
        found, wanted = recall_of(server, "found_total"), recall_of(server, "wanted_total")
        ratio = recall_of(server, "ratio")
    assert wanted == len(TEXTS) * K
    assert found == round(expected * wanted)
    assert 0.05 < expected < 0.95
    assert ratio == pytest.approx(expected)


async def test_answers_are_the_same_with_and_without(repository: Path) -> None:
    async with running_server(repository, **EVERYTHING) as server:
        watched = await ask_all(server)
    async with running_server(repository, recall_sample_rate=0) as server:
        plain = [await server.ask(text, k=K) for text in TEXTS]
        assert samples(server, "measured") == 0
    assert [list(a.labels) for a in watched] == [list(a.labels) for a in plain]
    assert [list(a.scores) for a in watched] == [list(a.scores) for a in plain]


async def test_a_label_that_a_filter_keeps_out_is_not_missed(repository: Path) -> None:
    few = pb.LabelFilter(allow=[f"label{i}" for i in range(20)])
    async with running_server(repository, **EVERYTHING) as server:
        answers = await ask_all(server, filter=few)
        found, wanted = recall_of(server, "found_total"), recall_of(server, "wanted_total")
    # So few labels are searched exactly by every index.
    assert found == wanted == sum(len(answer.labels) for answer in answers)


async def test_every_query_of_a_call_may_be_looked_at(repository: Path) -> None:
    async with running_server(repository, **EVERYTHING) as server:
        await server.ask(*TEXTS[:12], k=K)
        await until(lambda: samples(server, "measured") == 12)
        assert recall_of(server, "wanted_total") == 12 * K


async def test_a_ranker_is_part_of_both_sides(tmp_path: Path) -> None:
    publish_narrow(tmp_path, "tree_correction")
    async with running_server(tmp_path, **EVERYTHING) as server:
        answers = await ask_all(server)
        exact = server.current().retriever.path.exact().top_k(TextQueries(TEXTS), K)
        found = recall_of(server, "found_total")
    expected = sum(
        np.count_nonzero(np.float32(answer.scores) >= exact.row(i)[1][-1])
        for i, answer in enumerate(answers)
    )
    assert found == expected < K * len(TEXTS)


async def test_an_exact_index_is_not_searched_twice(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with running_server(tmp_path, **EVERYTHING) as server:
        for text in TEXTS[:5]:
            await server.ask(text, k=K)
        assert all(samples(server, name) == 0 for name in ("measured", "dropped", "failed"))


async def test_the_series_of_a_version_go_with_it(repository: Path) -> None:
    async with running_server(repository, **EVERYTHING, kept_versions=0) as server:
        await server.ask(TEXTS[0], k=K)
        await until(lambda: samples(server, "measured") == 1)
        publish_narrow(repository)
        await server.server.watcher.scan()
        await server.server.watcher.wait_retired()
        assert [recall_of(server, n) for n in ("ratio", "found_total", "wanted_total")] == [
            None
        ] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="a priority for each process alone")
async def test_the_search_gives_way_to_the_rest_of_the_server(repository: Path) -> None:
    async with running_server(repository, **EVERYTHING) as server:
        await server.ask(TEXTS[0], k=K)
        await until(lambda: samples(server, "measured") == 1)
        [thread] = [t for t in threading.enumerate() if t.name == "motherlode-recall"]
        niceness = os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert niceness > own
    await asyncio.to_thread(thread.join)
