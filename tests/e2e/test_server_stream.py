"""TopKStream: answers in order, several under way, errors within the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc
import pytest

from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_tiny
from tests.support.servers import Barrier, RunningServer, running_server, text_request
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


async def requests_of(texts: Iterable[str], k: int = 1) -> AsyncIterator[pb.TopKStreamRequest]:
    for text in texts:
        yield pb.TopKStreamRequest(request=text_request(text, k=k))


async def ask_all(server: RunningServer, texts: Iterable[str]) -> list[pb.TopKStreamResponse]:
    return [one async for one in server.stub.TopKStream(requests_of(texts))]


async def test_answers_come_in_the_order_of_the_requests(repository: Path) -> None:
    async with running_server(repository, max_stream_requests=3) as server:
        answers = await ask_all(server, [f"topic{i}" for i in range(20)])
    assert [one.response.labels[0] for one in answers] == list(range(20))


async def test_one_request_at_a_time_is_a_valid_setting(repository: Path) -> None:
    async with running_server(repository, max_stream_requests=1) as server:
        answers = await ask_all(server, ["topic4", "topic5"])
    assert [one.response.labels[0] for one in answers] == [4, 5]


async def test_an_empty_stream_ends_at_once(repository: Path) -> None:
    async with running_server(repository) as server:
        assert await ask_all(server, []) == []


async def test_a_wrong_request_is_answered_in_its_place_and_the_stream_goes_on(
    repository: Path,
) -> None:
    async def mixed() -> AsyncIterator[pb.TopKStreamRequest]:
        yield pb.TopKStreamRequest(request=text_request("topic1", k=1))
        yield pb.TopKStreamRequest(request=text_request("topic2", k=0))
        yield pb.TopKStreamRequest()
        yield pb.TopKStreamRequest(request=text_request("topic2", model=pb.ModelRef(name="other")))
        yield pb.TopKStreamRequest(request=text_request("topic3", k=1))

    async with running_server(repository) as server:
        answers = [one async for one in server.stub.TopKStream(mixed())]
        labels = {"model": "tiny", "version": "1", "method": "TopKStream"}
        assert server.metric("requests_total", code="OK", **labels) == 2
        assert server.metric("requests_total", code="INVALID_ARGUMENT", **labels) == 2
    assert [one.WhichOneof("outcome") for one in answers] == [
        "response",
        "error",
        "error",
        "error",
        "response",
    ]
    errors = [one.error for one in answers if one.HasField("error")]
    assert [error.reason for error in errors] == [
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "MODEL_NOT_FOUND",
    ]
    assert errors[0].message.startswith("k: expected 1 to 50, got 0")
    assert errors[2].code == grpc.StatusCode.NOT_FOUND.value[0]
    assert all(error.retry_after_s == 0 for error in errors)


async def test_a_full_queue_is_told_within_the_stream_with_a_time_to_retry(
    repository: Path,
) -> None:
    settings = {"max_queued_queries": 1, "max_queries_per_call": 1}
    async with running_server(repository, **settings) as server:
        with Barrier(server.current().retriever) as barrier:
            calls = [asyncio.create_task(server.ask("topic1"))]
            await asyncio.to_thread(barrier.wait_entered)
            calls.append(asyncio.create_task(server.ask("topic2")))
            await until(lambda: server.metric("queue_depth") == 1)
            [answer] = await ask_all(server, ["topic3"])
            barrier.release()
            await asyncio.gather(*calls)
    assert answer.error.reason == "QUEUE_FULL"
    assert answer.error.retry_after_s > 0


async def test_no_more_requests_are_under_way_than_configured(repository: Path) -> None:
    async with running_server(repository, max_stream_requests=4) as server:
        with Barrier(server.current().retriever) as barrier:
            asked = asyncio.create_task(ask_all(server, [f"topic{i}" for i in range(10)]))
            await asyncio.to_thread(barrier.wait_entered)
            await until(lambda: server.metric("inflight_requests") == 4)
            barrier.release()
            assert len(await asked) == 10
        assert max(barrier.sizes) <= 4


async def test_a_caller_who_leaves_takes_his_requests_along(repository: Path) -> None:
    async with running_server(repository) as server:
        with Barrier(server.current().retriever) as barrier:
            call = server.stub.TopKStream(requests_of(f"topic{i}" for i in range(6)))
            await asyncio.to_thread(barrier.wait_entered)
            await until(lambda: server.metric("inflight_requests") == 6)
            call.cancel()
            await until(lambda: server.metric("inflight_requests") == 0)
            barrier.release()
            assert (await server.ask("topic7", k=1)).labels == [7]


async def test_a_stream_spans_a_reload_and_each_answer_is_of_one_version(
    repository: Path,
) -> None:
    asked: asyncio.Queue[str | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[pb.TopKStreamRequest]:
        while (text := await asked.get()) is not None:
            yield pb.TopKStreamRequest(request=text_request(text))

    async with running_server(repository) as server:
        answers = aiter(server.stub.TopKStream(requests()))
        await asked.put("topic1")
        before = (await anext(answers)).response
        publish_tiny(repository, seed=1)
        await server.server.watcher.scan()
        await asked.put("topic1")
        after = (await anext(answers)).response
        await asked.put(None)
        assert await anext(answers, None) is None
    assert (before.version, after.version) == (1, 2)
    assert before.bundle_digest != after.bundle_digest
