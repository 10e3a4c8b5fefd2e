from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from motherlode.core.queries import EmbeddingQueries, Queries, TextQueries
from motherlode.core.query_path import StageTimes
from motherlode.core.topk import TopK
from motherlode.server.engine import Answer, Call
from motherlode.server.metrics import Meters
from motherlode.server.recall import RecallSampler, Sample, compare, pause_after
from motherlode.server.slot import ServedVersion
from tests.support.waiting import TIMEOUT_S, until


def top_of(rows: Iterable[Iterable[float]]) -> TopK:
    lists = [list(row) for row in rows]
    scores = np.array([score for row in lists for score in row], np.float32)
    labels = np.arange(len(scores), dtype=np.int64)
    return TopK(labels, scores, np.array([len(row) for row in lists], np.int64))


class FakePath:
    """Stages whose exact answer is given; may be held."""

    def __init__(self, best: Iterable[float]) -> None:
        self.index = SimpleNamespace(is_exact=False)
        self.best = best
        self.asked: list[Queries] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=TIMEOUT_S), "no sample came"

    def exact(self) -> FakePath:
        return self

    def top_k(self, queries: Queries, _k: int, **_: object) -> TopK:
        self.asked.append(queries)
        self.entered.release()
        assert self.open.wait(TIMEOUT_S)
        return top_of([self.best])


def served_by(path: FakePath, meters: Meters, version: int = 1) -> ServedVersion:
    retriever: Any = SimpleNamespace(model="m", version=version, digest="", path=path)
    return ServedVersion(retriever, meters.version("m", version))


def call_of(served: ServedVersion, num_queries: int = 1, k: int = 3) -> Call:
    future: Any = None
    queries = TextQueries([f"q{i}" for i in range(num_queries)])
    return Call(served, queries, k, future)


def answer_of(*rows: Iterable[float]) -> Answer:
    return Answer(top_of(rows), 0.0, StageTimes())


class Bench:
    def __init__(self, sample_rate: float, cpu_share: float) -> None:
        self.meters = Meters()
        self.path = FakePath([3.0, 2.0, 1.0])
        self.sampler = RecallSampler(
            self.meters,
            sample_rate=sample_rate,
            cpu_share=cpu_share,
            generator=random.Random(0),
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.meters.registry.get_sample_value(f"motherlode_search_recall_{name}", labels)

    def outcome(self, name: str) -> float | None:
        return self.value("samples_total", outcome=name)


@asynccontextmanager
async def bench(sample_rate: float = 1.0, cpu_share: float = 1.0) -> AsyncIterator[Bench]:
    made = Bench(sample_rate, cpu_share)
    made.sampler.start()
    try:
        yield made
    finally:
        made.path.open.set()
        await asyncio.to_thread(made.sampler.stop, TIMEOUT_S)


@pytest.mark.parametrize(
    ("found", "best", "expected"),
    [
        ([3, 2, 1], [3, 2, 1], (3, 3)),
        ([3, 1, 0], [3, 2, 1], (2, 3)),
        ([3, 1, 1], [3, 1, 1], (3, 3)),
        # The k-th and the one after it score the same, so either will do.
        ([3, 2, 2], [3, 3, 2], (3, 3)),
        ([3], [3, 2, 1], (1, 3)),
        ([], [3, 2, 1], (0, 3)),
        ([], [], (0, 0)),
    ],
)
def test_a_hit_counts_if_it_scores_no_less_than_the_last_of_the_exact_ones(
    found: list[float], best: list[float], expected: tuple[int, int]
) -> None:
    served = served_by(FakePath(best), Meters())
    sample = Sample.of(call_of(served), answer_of(found), 0)
    assert compare(served.retriever, sample) == expected


def test_a_sample_keeps_no_array_of_its_batch() -> None:
    served = served_by(FakePath([1]), Meters())
    batch_BD = np.arange(12, dtype=np.float32).reshape(3, 4)
    call = Call(served, EmbeddingQueries(batch_BD), 1, None)  # type: ignore[arg-type]
    answer = answer_of([1], [2], [3])
    sample = Sample.of(call, answer, 1)
    assert isinstance(sample.queries, EmbeddingQueries)
    assert sample.queries.embeddings_BD.tolist() == batch_BD[1:2].tolist()
    assert not np.shares_memory(sample.queries.embeddings_BD, batch_BD)
    assert sample.scores.tolist() == [2]
    assert not np.shares_memory(sample.scores, answer.top.scores)


@pytest.mark.parametrize("queries_per_call", [1, 7, 1000])
def test_each_query_is_drawn_with_the_same_chance(queries_per_call: int) -> None:
    made = Bench(0.1, 1.0)
    served = served_by(made.path, made.meters)
    call = call_of(served, queries_per_call)
    answer = answer_of(*[[1.0]] * queries_per_call)
    for _ in range(20_000 // queries_per_call):
        made.sampler.offer(call, answer)
    # Nothing takes them, so all but the few that fit are counted as dropped.
    assert made.outcome("dropped") == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize(("share", "pause_s"), [(1.0, 0.0), (0.5, 2.0), (0.01, 198.0)])
def test_work_is_followed_by_as_much_rest_as_its_share_asks_for(
    share: float, pause_s: float
) -> None:
    assert pause_after(2.0, share) == pytest.approx(pause_s)


@pytest.mark.asyncio
async def test_hits_found_and_wanted_add_up_by_k() -> None:
    async with bench() as b:
        served = served_by(b.path, b.meters)
        b.sampler.offer(call_of(served, k=3), answer_of([3, 2, 1]))
        b.sampler.offer(call_of(served, k=3), answer_of([3, 0, 0]))
        b.sampler.offer(call_of(served, k=9), answer_of([0]))
        await until(lambda: b.outcome("measured") == 3)
        labels = {"model": "m", "version": "1", "k": "3"}
        assert b.value("found_total", **labels) == 4
        assert b.value("wanted_total", **labels) == 6
        assert b.value("ratio", **labels) == pytest.approx(4 / 6)
        assert b.value("ratio", **labels | {"k": "9"}) == 0


@pytest.mark.asyncio
async def test_callers_cannot_make_series_without_end() -> None:
    async with bench() as b:
        served = served_by(b.path, b.meters)
        for number, k in enumerate(range(1, 30), start=1):
            b.sampler.offer(call_of(served, k=k), answer_of([3, 2, 1]))
            await until(lambda number=number: b.outcome("measured") == number)  # type: ignore[misc]
        [family] = [f for f in b.meters.registry.collect() if f.name.endswith("recall_ratio")]
        names = {sample.labels["k"] for sample in family.samples}
    assert names == {*map(str, range(1, 9)), "other"}


@pytest.mark.asyncio
async def test_samples_beyond_the_queue_are_dropped_and_counted() -> None:
    async with bench() as b:
        served = served_by(b.path, b.meters)
        b.path.open.clear()
        b.sampler.offer(call_of(served), answer_of([1]))
        await asyncio.to_thread(b.path.wait_entered)
        b.sampler.offer(call_of(served, 100), answer_of(*[[1.0]] * 100))
        assert b.outcome("dropped") == 84
        b.path.open.set()
        await until(lambda: b.outcome("measured") == 17)


@pytest.mark.asyncio
async def test_a_waiting_sample_lets_its_version_go() -> None:
    async with bench() as b:
        b.path.open.clear()
        held = served_by(b.path, b.meters)
        b.sampler.offer(call_of(held), answer_of([1]))
        await asyncio.to_thread(b.path.wait_entered)
        other = FakePath([1])
        retired = served_by(other, b.meters, version=2)
        b.sampler.offer(call_of(retired), answer_of([1]))
        watch = weakref.ref(retired)
        del retired
        gc.collect()
        assert watch() is None
        b.path.open.set()
        await until(lambda: b.outcome("retired") == 1)
        assert (other.asked, held.version) == ([], 1)


@pytest.mark.asyncio
async def test_what_was_measured_of_a_version_that_has_gone_makes_no_series() -> None:
    async with bench() as b:
        served = served_by(b.path, b.meters)
        b.path.open.clear()
        b.sampler.offer(call_of(served), answer_of([1]))
        await asyncio.to_thread(b.path.wait_entered)
        served.meters.remove()
        b.path.open.set()
        await until(lambda: b.outcome("retired") == 1)
        assert b.value("ratio", model="m", version="1", k="3") is None


@pytest.mark.asyncio
async def test_a_search_that_fails_does_not_end_the_measuring(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench() as b:
        broken: Any = FakePath([])
        broken.best = None
        failing, served = served_by(broken, b.meters), served_by(b.path, b.meters, version=2)
        b.sampler.offer(call_of(failing), answer_of([1]))
        b.sampler.offer(call_of(served), answer_of([1]))
        await until(lambda: b.outcome("measured") == 1)
        assert b.outcome("failed") == 1
    assert f"an exact search of m@{failing.version} failed" in caplog.text


@pytest.mark.asyncio
async def test_it_stops_in_the_middle_of_its_rest() -> None:
    async with bench(cpu_share=0.0001) as b:
        b.path.open.clear()
        b.sampler.offer(call_of(served := served_by(b.path, b.meters)), answer_of([1]))
        await asyncio.to_thread(b.path.wait_entered)
        b.path.open.set()
        await until(lambda: b.outcome("measured") == 1)
        await asyncio.to_thread(b.sampler.stop, TIMEOUT_S)
        assert served.version == 1
    assert not any(thread.name == "motherlode-recall" for thread in threading.enumerate())
