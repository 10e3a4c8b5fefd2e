"""A server that has more to do than it can: who waits, who is refused, what is dropped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from motherlode.core.queries import Queries, TextQueries
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc
from tests.support.bundles import publish_tiny
from tests.support.servers import TIMEOUT_S, Barrier, RunningServer, running_server, text_request
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

# Otherwise all channels to one address would share one connection, and be one caller.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


@asynccontextmanager
async def another_caller(server: RunningServer) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address, _OWN_CONNECTION) as channel:
        yield retrieval_pb2_grpc.RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]


async def refusal(call: Any) -> tuple[str, bool, dict[str, str]]:
    """Reason, whether a retry is advised, and the metadata of a failed call's status."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    status = rpc_status.from_call(failed.value)
    assert status is not None, failed.value
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    can_retry = any(detail.Unpack(retry) for detail in status.details)
    assert any(detail.Unpack(info) for detail in status.details)
    return info.reason, can_retry, dict(info.metadata)


def texts_of(queries: Queries) -> list[str]:
    assert isinstance(queries, TextQueries)
    return list(queries.texts)


async def test_a_single_query_has_its_turn_within_a_bulk_call(repository: Path) -> None:
    bulk_texts = [f"topic{i}" for i in range(12)]
    async with (
        running_server(repository, max_batch_queries=2) as server,
        another_caller(server) as single,
    ):
        with Barrier(server.current().retriever) as barrier:
            bulk = asyncio.create_task(server.ask(*bulk_texts, k=1))
            await asyncio.to_thread(barrier.wait_entered)
            asked = asyncio.ensure_future(single.TopK(text_request("topic30", k=1)))
            await until(lambda: server.metric("queue_depth") == 11)
            barrier.release()
            answers = await asyncio.gather(bulk, asked)
    assert list(answers[0].labels) == list(range(12))
    assert list(answers[1].labels) == [30]
    assert "topic30" in texts_of(barrier.batches[1])
    assert barrier.sizes == [2] * 6 + [1]


async def test_a_stream_of_large_calls_leaves_room_for_a_single_query(repository: Path) -> None:
    async def requests() -> AsyncIterator[pb.TopKStreamRequest]:
        for _ in range(4):
            yield pb.TopKStreamRequest(request=text_request("topic1", "topic2", k=1))

    settings = {"max_queries_per_call": 2, "max_queued_queries": 6, "max_batch_queries": 2}
    async with running_server(repository, **settings) as server, another_caller(server) as single:
        with Barrier(server.current().retriever) as barrier:
            stream = server.stub.TopKStream(requests(), timeout=TIMEOUT_S)
            await asyncio.to_thread(barrier.wait_entered)
            await until(lambda: server.metric("queue_depth") == 6)
            asked = asyncio.ensure_future(single.TopK(text_request("topic30", k=1)))
            await until(lambda: server.metric("queue_depth") == 5)
            barrier.release()
            assert (await asked).labels == [30]
            answers = [answer async for answer in stream]
        rejected = server.metric("queue_rejected_total", reason="queue_full")
    # The last of the stream's calls made room, and says when to come again.
    assert [answer.error.reason for answer in answers] == ["", "", "", "QUEUE_FULL"]
    assert answers[3].error.retry_after_s > 0
    assert rejected == 1


async def test_what_nobody_waits_for_after_the_encoding_is_not_searched(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, encoded = threading.Event(), threading.Event()
    # The event loop is not to wait.
    monkeypatch.setattr("motherlode.server.batcher._QUICK_S", 0.0)
    async with running_server(repository) as server:
        path = server.current().retriever.path
        encode, searches = path.encoder.encode, []
        search = path.index.search

        def wait(features: Any) -> Any:
            encoding.set()
            assert encoded.wait(TIMEOUT_S)
            return encode(features)

        def note(*args: Any, **options: Any) -> Any:
            searches.append(len(args[0]))
            return search(*args, **options)

        monkeypatch.setattr(path.encoder, "encode", wait)
        monkeypatch.setattr(path.index, "search", note)
        lost = asyncio.create_task(server.ask("topic1"))
        await asyncio.to_thread(encoding.wait, TIMEOUT_S)
        lost.cancel()
        await until(lambda: server.metric("inflight_requests") == 0)
        encoded.set()
        dropped = {"reason": "cancelled", "stage": "search"}
        await until(lambda: server.metric("queue_dropped_total", **dropped) == 1)
        assert (await server.ask("topic2")).labels[0] == 2
    assert searches == [1]


async def test_more_than_the_queue_may_hold_in_memory_is_too_large(repository: Path) -> None:
    async with running_server(repository, max_queued_bytes=4000) as server:
        reason, can_retry, metadata = await refusal(
            server.stub.TopK(text_request("x" * 5000), timeout=TIMEOUT_S)
        )
    assert (reason, can_retry) == ("REQUEST_TOO_LARGE", False)
    assert metadata["expected"].startswith("at most 4000 bytes")


async def test_a_queue_that_holds_too_much_memory_refuses_for_a_while(repository: Path) -> None:
    async with running_server(repository, max_queued_bytes=4000) as server:
        with Barrier(server.current().retriever) as barrier:
            calls = [asyncio.create_task(server.ask("topic1"))]
            await asyncio.to_thread(barrier.wait_entered)
            calls.append(asyncio.create_task(server.ask("topic2" + " filler" * 300)))
            await until(lambda: (server.metric("queue_bytes") or 0) > 2000)
            text = "topic3" + " filler" * 300
            reason, can_retry, _ = await refusal(
                server.stub.TopK(text_request(text), timeout=TIMEOUT_S)
            )
            barrier.release()
            answers = await asyncio.gather(*calls)
        assert server.metric("queue_rejected_total", reason="queue_bytes") == 1
    assert (reason, can_retry) == ("QUEUE_BYTES", True)
    assert [answer.labels[0] for answer in answers] == [1, 2]


async def test_a_call_that_would_wait_too_long_is_refused_for_a_while(repository: Path) -> None:
    # Nothing is served while the barrier stands, so that a query counts a millisecond.
    settings = {"max_queue_delay_s": 0.0025, "max_batch_queries": 3}
    async with running_server(repository, **settings) as server:
        with Barrier(server.current().retriever) as barrier:
            calls = [asyncio.create_task(server.ask("topic1"))]
            await asyncio.to_thread(barrier.wait_entered)
            calls += [asyncio.create_task(server.ask(f"topic{i}")) for i in range(3)]
            await until(lambda: server.metric("queue_depth") == 3)
            late = await refusal(server.stub.TopK(text_request("topic5"), timeout=TIMEOUT_S))
            barrier.release()
            await asyncio.gather(*calls)
    assert late[:2] == ("QUEUE_DELAY", True)


async def test_a_stream_waits_for_its_own_requests_and_is_not_refused(repository: Path) -> None:
    async def requests() -> AsyncIterator[pb.TopKStreamRequest]:
        for i in range(5):
            yield pb.TopKStreamRequest(request=text_request(f"topic{i}", "topic9", k=1))

    settings = {"max_queue_delay_s": 0.0001, "max_batch_queries": 2}
    async with running_server(repository, **settings) as server:
        with Barrier(server.current().retriever) as barrier:
            stream = server.stub.TopKStream(requests(), timeout=TIMEOUT_S)
            await asyncio.to_thread(barrier.wait_entered)
            await until(lambda: server.metric("queue_depth") == 8)
            barrier.release()
            answers = [answer.response async for answer in stream]
    assert [list(answer.labels) for answer in answers] == [[i, 9] for i in range(5)]


async def test_a_call_whose_deadline_would_pass_in_the_queue_is_refused_at_once(
    repository: Path,
) -> None:
    settings = {"max_queue_delay_s": 1e6, "max_queued_queries": 200_000}
    async with running_server(repository, max_queries_per_call=100_000, **settings) as server:
        with Barrier(server.current().retriever) as barrier:
            calls = [asyncio.create_task(server.ask("topic1"))]
            await asyncio.to_thread(barrier.wait_entered)
            many = ["topic2"] * 100_000
            calls.append(asyncio.create_task(server.ask(*many, k=1)))
            await until(lambda: server.metric("queue_depth") == 100_000)
            doomed = await refusal(server.stub.TopK(text_request("topic5"), timeout=50.0))
            calls[1].cancel()
            barrier.release()
            await calls[0]
    assert doomed[:2] == ("QUEUE_DEADLINE", True)


async def test_the_limits_of_the_queue_are_published(repository: Path) -> None:
    settings = {"max_queued_bytes": 5000, "max_batch_queries": 7, "max_queue_delay_s": 0.25}
    async with running_server(repository, **settings) as server:
        limits = (await server.info()).limits
    assert limits.max_queued_bytes == 5000
    assert limits.max_batch_queries == 7
    assert limits.max_queue_delay_s == 0.25
