"""Calls in parts, what is dropped in their midst, and an idle server."""

from __future__ import annotations

import asyncio
import threading

import pytest

from motherlode.server import batcher
from motherlode.server.call import ExpiredError, InternalError
from tests.support.batching import ANY_LIMITS, Bench, bench, labels_of
from tests.support.fake_retriever import TIMEOUT_S, FakeRetriever
from tests.support.virtual_time import run_in_virtual_time
from tests.support.waiting import until


@pytest.mark.asyncio
async def test_a_call_above_the_batch_limit_runs_in_parts() -> None:
    async with bench(max_batch=2) as b:
        answer, other = await asyncio.gather(b.submit("1", "few 2", "3", "4", "5"), b.submit("6"))
    assert b.retriever.batches == [["1", "few 2"], ["3", "4"], ["5", "6"]]
    assert labels_of(answer) == [[1, 2], [2], [3, 4], [4, 5], [5, 6]]
    assert labels_of(other) == [[6, 7]]
    assert answer.times.search_s == 3 * 0.25


@pytest.mark.asyncio
async def test_a_batch_stays_within_the_memory_that_it_may_take() -> None:
    async with bench(max_batch_bytes=3 * FakeRetriever.BYTES_PER_QUERY) as b:
        await b.submit("1", "2", "3", "4")
    assert b.retriever.batches == [["1", "2", "3"], ["4"]]


@pytest.mark.asyncio
async def test_another_callers_query_waits_for_one_part_of_a_large_call_at_most() -> None:
    async with bench(max_batch=2) as b:
        b.retriever.hold()
        large = b.submit(*"123456", caller="bulk")
        await asyncio.to_thread(b.retriever.wait_entered)
        single = b.submit("9", caller="single")
        b.retriever.release()
        await asyncio.gather(large, single)
    assert b.retriever.batches == [["1", "2"], ["9", "3"], ["4", "5"], ["6"]]


@pytest.mark.asyncio
async def test_a_call_that_fails_in_a_part_does_not_run_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench(max_batch=2) as b:
        with pytest.raises(InternalError):
            await b.submit("fail", "2", "3", "4")
        await b.batcher.wait_idle()
    assert b.retriever.batches == [["fail", "2"]]
    assert len(caplog.records) == 1


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a batch is, the next one is handed to the engine as soon as it has begun."""
    monkeypatch.setattr(batcher, "_LONG_S", 0.0)
    monkeypatch.setattr(batcher, "_AHEAD_S", 1.0)


@pytest.mark.usefixtures("ahead")
@pytest.mark.asyncio
async def test_the_engine_has_the_next_batch_before_it_is_done() -> None:
    async with bench(max_batch=2) as b:
        b.retriever.hold()
        answer = b.submit(*"123456")
        await until(lambda: b.value("queue_depth") == 2)
        assert b.batcher._admission._following_s > 0
        b.retriever.release()
        assert labels_of(await answer) == [[n, n + 1] for n in range(1, 7)]
        await b.batcher.wait_idle()
    assert b.retriever.batches == [["1", "2"], ["3", "4"], ["5", "6"]]


@pytest.mark.usefixtures("ahead")
@pytest.mark.asyncio
async def test_of_a_call_that_fails_what_the_engine_has_already_is_not_searched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench(max_batch=2) as b:
        call, has_failed = b.call("fail", "2", "3", "4", "5"), threading.Event()
        call.future.add_done_callback(lambda _: has_failed.set())
        b.retriever.after_encoding = lambda: (
            len(b.retriever.batches) == 2 and has_failed.wait(TIMEOUT_S)
        )
        b.retriever.hold()
        b.batcher.submit(call)
        await until(lambda: b.value("queue_depth") == 1)
        b.retriever.release()
        with pytest.raises(InternalError):
            await call.future
        await b.batcher.wait_idle()
    assert b.retriever.batches == [["fail", "2"], ["3", "4"]]
    # What is counted after the answers is counted by then.
    await asyncio.sleep(0)
    assert b.value("queue_dropped_total", reason="done", stage="search") is None
    assert b.retriever.searched == [["fail", "2"], []]
    assert len(caplog.records) == 1


@pytest.mark.asyncio
async def test_a_batch_that_ends_early_and_a_rest_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batcher, "_LONG_S", 0.0)
    monkeypatch.setattr(batcher, "_AHEAD_S", -1000.0)
    async with bench() as b:
        b.batcher._admission._overloaded_until = float("inf")
        held = await b.occupy()
        timer = b.batcher._timer
        assert timer is not None
        b.retriever.release()
        await held
        await b.batcher.wait_idle()
        assert timer.cancelled()
        assert b.batcher._admission._overloaded_until == 0


@pytest.mark.usefixtures("ahead")
@pytest.mark.asyncio
async def test_the_queue_is_not_taken_ahead_of_two_batches() -> None:
    async with bench(max_batch=1) as b:
        b.retriever.hold()
        answers = [b.submit(text) for text in "1234"]
        await until(lambda: b.value("queue_depth") == 2)
        b.retriever.release()
        assert [labels_of(await answer) for answer in answers] == [
            [[n, n + 1]] for n in range(1, 5)
        ]
    assert b.retriever.batches == [["1"], ["2"], ["3"], ["4"]]


@pytest.mark.parametrize("way", ["cancelled", "expired"])
@pytest.mark.asyncio
async def test_a_large_call_that_nobody_waits_for_any_more_does_not_run_on(way: str) -> None:
    async with bench(max_batch=2) as b:
        call = b.call(*"1234")
        b.retriever.after_search = lambda: b.lose(call, way)
        b.batcher.submit(call)
        await b.batcher.wait_idle()
        assert b.value("queue_depth") == 0
        if way == "expired":
            with pytest.raises(ExpiredError, match="before the encode"):
                await call.future
    assert b.retriever.batches == [["1", "2"]]
    assert b.value("queue_dropped_total", reason=way, stage="encode") == 1


@pytest.mark.parametrize("way", ["cancelled", "expired"])
@pytest.mark.asyncio
async def test_what_nobody_waits_for_after_the_encoding_is_not_searched(way: str) -> None:
    async with bench() as b:
        lost, kept = b.call("1", "2"), b.call("3")
        b.retriever.after_encoding = lambda: b.lose(lost, way)
        answers = [b.batcher.submit(lost), b.batcher.submit(kept)]
        assert labels_of(await answers[1]) == [[3, 4]]
        if way == "expired":
            with pytest.raises(ExpiredError, match="before the search"):
                await answers[0]
        await until(lambda: b.value("queue_dropped_total", reason=way, stage="search") == 1)
    assert b.retriever.searched == [["3"]]


def test_an_idle_server_adds_no_wait_at_all() -> None:
    async def ask_one_after_another() -> float:
        b = Bench(ANY_LIMITS)
        b.served.usual_duration_s = 0.0005
        for i in range(5):
            assert labels_of(await b.submit(str(i))) == [[i, i + 1]]
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(ask_one_after_another()) == 0.0
