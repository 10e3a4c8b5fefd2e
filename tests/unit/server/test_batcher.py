from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

from motherlode.core.errors import OverloadedError, UnsupportedError
from motherlode.core.index import LabelFilter
from motherlode.core.queries import EmbeddingQueries
from motherlode.server.call import ExpiredError, InternalError
from tests.support.batching import bench, labels_of
from tests.support.fake_retriever import FakeRetriever
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


async def test_an_idle_engine_answers_a_single_call() -> None:
    async with bench() as b:
        answer = await b.submit("5")
    assert labels_of(answer) == [[5, 6]]
    assert b.retriever.batches == [["5"]]


async def test_calls_of_one_turn_of_the_loop_run_together() -> None:
    async with bench() as b:
        await asyncio.gather(b.submit("1"), b.submit("2"), b.submit("3"))
    assert b.retriever.batches == [["1", "2", "3"]]


async def test_what_arrives_while_the_engine_is_busy_runs_together_next() -> None:
    async with bench() as b:
        first = await b.occupy()
        later = [b.submit(str(i)) for i in range(3)]
        b.retriever.release()
        await asyncio.gather(first, *later)
    assert b.retriever.batches == [["900"], ["0", "1", "2"]]


async def test_each_call_gets_its_own_rows() -> None:
    async with bench() as b:
        answers = await asyncio.gather(
            b.submit("10", "few 20"), b.submit("few 30"), b.submit("40", "50", "60")
        )
    assert list(map(labels_of, answers)) == [
        [[10, 11], [20]],
        [[30]],
        [[40, 41], [50, 51], [60, 61]],
    ]


async def test_an_answer_tells_its_wait_and_the_times_of_its_batch() -> None:
    async with bench() as b:
        answer = await b.submit("1", arrived=time.monotonic() - 2.0)
    assert answer.queue_s >= 2.0
    assert answer.times.search_s == 0.25


@pytest.mark.parametrize(
    "other",
    [
        {"k": 3},
        {"queries": EmbeddingQueries(np.full((1, 4), 7, np.float32))},
        {"filter": LabelFilter(np.array([1]), "allow")},
        {"filter": LabelFilter(np.array([1]), "deny")},
    ],
    ids=["k", "kind", "allow", "deny"],
)
async def test_calls_that_differ_in_more_than_their_queries_run_apart(
    other: dict[str, Any],
) -> None:
    async with bench() as b:
        await asyncio.gather(b.submit("1"), b.submit("7", **other), b.submit("2"))
    assert b.retriever.batches == [["1", "2"], ["7"]]


async def test_calls_with_equal_filters_run_together() -> None:
    async with bench() as b:
        await asyncio.gather(
            *(b.submit(text, filter=LabelFilter(np.array([4, 9]), "deny")) for text in "12")
        )
    assert b.retriever.batches == [["1", "2"]]


async def test_calls_of_two_versions_run_apart_each_on_its_own() -> None:
    async with bench() as b:
        newer = FakeRetriever(2)
        await asyncio.gather(b.submit("1"), b.submit("2", served=b.serve(newer)), b.submit("3"))
    assert b.retriever.batches == [["1", "3"]]
    assert newer.batches == [["2"]]


async def test_a_batch_stays_within_its_limit() -> None:
    async with bench(max_batch=4) as b:
        await asyncio.gather(*(b.submit(f"{i}", f"{i + 1}", f"{i + 2}") for i in (10, 20)))
    assert b.retriever.batches == [["10", "11", "12"], ["20", "21", "22"]]


async def test_a_busy_group_cannot_starve_another() -> None:
    async with bench(max_batch=1) as b:
        first = await b.occupy()
        later = [b.submit("1"), b.submit("2"), b.submit("3"), b.submit("7", k=1)]
        b.retriever.release()
        await asyncio.gather(first, *later)
    assert b.retriever.batches[1:3] == [["1"], ["7"]]


async def test_a_full_queue_refuses_a_call_and_says_when_to_retry() -> None:
    async with bench(max_queued=3) as b:
        first = await b.occupy()
        queued = b.submit("1", "2")
        with pytest.raises(OverloadedError, match="2 queries wait, of at most 3") as refusal:
            b.submit("3", "4")
        b.retriever.release()
        await asyncio.gather(first, queued)
    assert refusal.value.retry_after_s > 0
    assert b.value("queue_rejected_total", reason="queue_full") == 1
    assert b.retriever.batches == [["900"], ["1", "2"]]


async def test_the_queue_counts_queries_and_their_memory_and_empties() -> None:
    async with bench() as b:
        first = await b.occupy()
        queued = b.submit("1", "2", "3", num_bytes=70)
        assert (b.value("queue_depth"), b.value("queue_bytes")) == (3, 70)
        b.retriever.release()
        await asyncio.gather(first, queued)
        assert (b.value("queue_depth"), b.value("queue_bytes")) == (0, 0)


async def test_a_cancelled_call_never_runs_and_its_mates_do() -> None:
    async with bench() as b:
        first = await b.occupy()
        left, stayed = b.submit("1"), b.submit("2")
        left.cancel()
        b.retriever.release()
        assert labels_of(await stayed) == [[2, 3]]
        await first
    assert b.retriever.batches == [["900"], ["2"]]
    assert b.value("queue_dropped_total", reason="cancelled", stage="encode") == 1


async def test_a_call_cancelled_while_it_runs_does_not_disturb_its_mates() -> None:
    async with bench() as b:
        b.retriever.hold()
        left, stayed = b.submit("1"), b.submit("2")
        await asyncio.to_thread(b.retriever.wait_entered)
        left.cancel()
        b.retriever.release()
        assert labels_of(await stayed) == [[2, 3]]


async def test_an_expired_call_never_runs_and_its_mates_do() -> None:
    async with bench() as b:
        first = await b.occupy()
        late, timely = b.submit("1", deadline=time.monotonic() - 1), b.submit("2")
        b.retriever.release()
        with pytest.raises(ExpiredError):
            await late
        assert labels_of(await timely) == [[2, 3]]
        await first
    assert b.retriever.batches == [["900"], ["2"]]
    assert b.value("queue_dropped_total", reason="expired", stage="encode") == 1


async def test_when_nobody_waits_any_more_the_engine_becomes_idle() -> None:
    async with bench() as b:
        first = await b.occupy()
        b.submit("1").cancel()
        b.retriever.release()
        await first
        await b.batcher.wait_idle()
        assert labels_of(await b.submit("4")) == [[4, 5]]


async def test_one_failing_call_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as b:
        outcomes = await asyncio.gather(
            b.submit("1"), b.submit("fail"), b.submit("3"), return_exceptions=True
        )
    assert labels_of(outcomes[0]) == [[1, 2]]  # type: ignore[arg-type]
    assert isinstance(outcomes[1], InternalError)
    assert labels_of(outcomes[2]) == [[3, 4]]  # type: ignore[arg-type]
    assert "secret" not in str(outcomes[1])
    assert "a secret of the model" in caplog.text


@pytest.mark.parametrize("text", ["fail", "exit"])
async def test_the_engine_outlives_whatever_a_call_does(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench() as b:
        with pytest.raises(InternalError):
            await b.submit(text)
        assert labels_of(await b.submit("4")) == [[4, 5]]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_an_error_raised_on_purpose_reaches_the_caller() -> None:
    async with bench() as b:
        b.retriever.error = UnsupportedError("this index knows no filters")
        with pytest.raises(UnsupportedError, match="knows no filters"):
            await b.submit("raise")


async def test_metrics_count_the_queries_of_a_batch_and_the_short_answers() -> None:
    async with bench() as b:
        await asyncio.gather(b.submit("1", "few 2"), b.submit("few 3"))
        await b.batcher.wait_idle()
    labels = {"model": "fake", "version": "1"}
    assert b.value("queries_total", **labels) == 3
    assert b.value("results_short_total", **labels) == 2
    assert b.value("batch_size_sum", **labels) == 3
    assert b.value("stage_duration_seconds_sum", stage="search", **labels) == 0.25
    assert b.value("stage_duration_seconds_count", stage="queue", **labels) == 2


async def test_an_idle_engine_keeps_no_version_in_memory() -> None:
    async with bench() as b:
        retriever = FakeRetriever(2)
        gone = weakref.ref(retriever)
        await b.submit("1", served=b.serve(retriever))
        del retriever

        def is_gone() -> bool:
            gc.collect()
            return gone() is None

        await until(is_gone)


async def test_a_single_query_of_a_fast_version_runs_in_the_event_loop() -> None:
    async with bench() as b:
        await b.submit("5")
        assert b.retriever.threads[-1] != threading.get_ident()
        b.served.usual_duration_s = 0.0005

        answer = await b.submit("6")

        assert labels_of(answer) == [[6, 7]]
        assert b.retriever.threads[-1] == threading.get_ident()


@pytest.mark.parametrize(
    ("texts", "fields", "usual_duration_s"),
    [
        (("1", "2"), {}, 0.0005),
        (("1",), {"filter": LabelFilter(np.array([9]), "deny")}, 0.0005),
        (("1",), {}, 0.5),
    ],
    ids=["two-queries", "filter", "slow-version"],
)
async def test_what_may_keep_the_event_loop_busy_runs_in_the_engine(
    texts: tuple[str, ...], fields: dict[str, Any], usual_duration_s: float
) -> None:
    async with bench() as b:
        b.served.usual_duration_s = usual_duration_s
        await b.submit(*texts, **fields)
    assert threading.get_ident() not in b.retriever.threads


async def test_once_calls_overlap_quick_ones_leave_the_event_loop_free_for_a_while() -> None:
    async with bench() as b:
        now = time.monotonic()
        await asyncio.gather(b.submit("1", arrived=now), b.submit("2", arrived=now))
        b.served.usual_duration_s = 0.0005

        await b.submit("3", arrived=now + 0.09)
        assert b.retriever.threads[-1] != threading.get_ident()
        b.served.usual_duration_s = 0.0005

        await b.submit("4", arrived=now + 0.11)
        assert b.retriever.threads[-1] == threading.get_ident()
