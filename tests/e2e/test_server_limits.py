"""Limits of connections and calls in size, number and time, and callers who abuse them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from motherlode.clients import AsyncClient, UnavailableError
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_tiny
from tests.support.servers import TIMEOUT_S, Barrier, RunningServer, running_server, text_request
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_SETTINGS = bytes(3) + b"\x04" + bytes(5)
# Of a HEADERS frame of 100 bytes, nine, which is its own header.
HALF_A_FRAME = b"\x00\x00\x64\x01\x04\x00\x00\x00\x01"
SILENT_STARTS = {
    "nothing": b"",
    "half of the preface": PREFACE[:10],
    "the preface": PREFACE,
    "half a frame": PREFACE + NO_SETTINGS + HALF_A_FRAME,
    "no HTTP/2": b"GET / HTTP/1.1\r\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


async def connect(server: RunningServer, start: bytes) -> asyncio.StreamReader:
    host, port = server.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(start)
    # As long as the reader lives the connection does.
    reader.__dict__["writer"] = writer
    return reader


def close(connection: asyncio.StreamReader) -> None:
    connection.__dict__["writer"].close()


async def is_closed_by_the_server(connection: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(TIMEOUT_S):
        try:
            await connection.read(-1)
        except ConnectionResetError:
            return True
        finally:
            close(connection)
    return connection.at_eof()


@pytest.mark.parametrize("start", ["nothing", "half of the preface", "the preface", "no HTTP/2"])
async def test_a_connection_that_does_not_get_under_way_is_closed(
    repository: Path, start: str
) -> None:
    async with running_server(repository, handshake_timeout_s=0.05) as server:
        assert await is_closed_by_the_server(await connect(server, SILENT_STARTS[start]))


async def test_a_connection_that_stays_silent_in_the_middle_is_closed(repository: Path) -> None:
    settings = {"max_connection_age_s": 0.05, "connection_age_grace_s": 0.05}
    async with running_server(repository, **settings) as server:
        silent = await connect(server, SILENT_STARTS["half a frame"])
        assert await is_closed_by_the_server(silent)


async def test_callers_are_answered_beside_many_who_connect_and_say_no_more(
    repository: Path,
) -> None:
    async with running_server(repository) as server:
        silent = [
            await connect(server, start) for start in SILENT_STARTS.values() for _ in range(40)
        ]
        for i in range(20):
            assert (await server.ask(f"topic{i}", k=1)).labels == [i]
        async with AsyncClient(server.address, options=ALONE) as newcomer:
            assert (await newcomer.top_k(["topic7"], k=1)).labels[0] == 7
        for connection in silent:
            close(connection)


ALONE = (("grpc.use_local_subchannel_pool", 1),)


async def test_callers_are_answered_beside_calls_whose_request_never_comes(
    repository: Path,
) -> None:
    async def never() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield b""

    async with running_server(repository) as server:
        # A stream in the place of one request: the call is there, and its message is not.
        method = server.channel.stream_unary("/motherlode.v1.RetrievalService/TopK")
        calls = [method(never()) for _ in range(100)]
        assert (await server.ask("topic7", k=1)).labels == [7]
        for call in calls:
            call.cancel()


async def test_of_too_many_connections_the_last_is_closed_and_there_is_room_again(
    repository: Path,
) -> None:
    async with running_server(repository, max_connections=2) as server:
        first, second = [await connect(server, SILENT_STARTS["half a frame"]) for _ in range(2)]
        # Each says something when it is taken.
        assert await first.read(1)
        assert await second.read(1)
        assert await is_closed_by_the_server(await connect(server, PREFACE))
        close(first)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncClient(server.address, timeout_s=60))
            async with asyncio.timeout(TIMEOUT_S):
                # The server learns in its own time that the first one has gone.
                while not await is_answered(client):
                    pass
        close(second)


async def is_answered(client: AsyncClient) -> bool:
    try:
        return bool((await client.top_k(["topic7"], k=1)).labels[0] == 7)
    except UnavailableError:
        return False


async def test_metadata_beyond_the_limit_are_refused(repository: Path) -> None:
    async with running_server(repository, max_metadata_bytes=2048) as server:
        for size_bytes, code in ((1000, grpc.StatusCode.OK), (4000, Code.RESOURCE_EXHAUSTED)):
            call = server.stub.TopK(
                text_request("topic7"), metadata=(("x-long", "a" * size_bytes),), timeout=TIMEOUT_S
            )
            assert await call.code() is code


Code = grpc.StatusCode


@pytest.mark.parametrize("setting", ["max_connection_idle_s", "max_connection_age_s"])
async def test_a_connection_that_is_idle_or_old_goes_and_the_next_call_makes_another(
    repository: Path, setting: str
) -> None:
    async with running_server(repository, **{setting: 0.05}) as server:
        assert (await server.ask("topic7", k=1)).labels == [7]
        async with asyncio.timeout(TIMEOUT_S):
            while (state := server.channel.get_state()) is grpc.ChannelConnectivity.READY:
                await server.channel.wait_for_state_change(state)
        assert (await server.ask("topic7", k=1)).labels == [7]


async def test_no_call_fails_while_connections_grow_old(repository: Path) -> None:
    async with running_server(repository, max_connection_age_s=0.02) as server:
        for i in range(300):
            assert (await server.ask(f"topic{i % 50}", k=1)).labels == [i % 50]


async def test_a_connection_takes_no_more_calls_than_it_may(repository: Path) -> None:
    async with (
        running_server(repository, max_connection_calls=1) as server,
        AsyncClient(server.address, options=ALONE, timeout_s=TIMEOUT_S) as other,
    ):
        with Barrier(server.current().retriever) as barrier:
            calls = [asyncio.create_task(server.ask(f"topic{i}", k=1)) for i in range(2)]
            await asyncio.to_thread(barrier.wait_entered)
            beside = asyncio.create_task(other.top_k(["topic3"], k=1))
            await until(lambda: server.metric("queue_depth") == 1)
            # The second call of the first connection came before, and is not there.
            assert server.metric("inflight_requests") == 2
            barrier.release()
            await asyncio.gather(*calls, beside)


async def test_a_call_without_a_deadline_has_one_here(repository: Path) -> None:
    async with running_server(repository, max_call_s=0.05) as server:
        with Barrier(server.current().retriever) as barrier:
            first = asyncio.create_task(server.ask("topic1", k=1))
            await asyncio.to_thread(barrier.wait_entered)
            waits = server.stub.TopK(text_request("topic2"))
            await until(lambda: server.metric("queue_depth") == 1)
            waited_since = time.monotonic()
            await until(lambda: time.monotonic() > waited_since + 0.05)
            barrier.release()
            with pytest.raises(grpc.aio.AioRpcError, match="before the search"):
                await first
            assert await waits.code() is Code.DEADLINE_EXCEEDED
    for stage in ("encode", "search"):
        assert server.metric("queue_dropped_total", reason="expired", stage=stage) == 1


async def test_a_stream_without_requests_ends_after_its_last_answer(repository: Path) -> None:
    async def requests() -> AsyncIterator[pb.TopKStreamRequest]:
        yield pb.TopKStreamRequest(request=text_request("topic7", k=1))
        await asyncio.Event().wait()

    async with running_server(repository, max_stream_idle_s=0.05) as server:
        stream = server.stub.TopKStream(requests())
        assert list((await stream.read()).response.labels) == [7]
        with pytest.raises(grpc.aio.AioRpcError, match="no request came for"):
            await stream.read()
        assert await stream.code() is Code.UNAVAILABLE


async def test_a_client_with_pauses_in_its_stream_does_not_notice(repository: Path) -> None:
    async with running_server(repository, max_stream_idle_s=0.02) as server:

        async def batches() -> AsyncIterator[list[str]]:
            for i in range(4):
                yield [f"topic{i}"]
                paused_since = time.monotonic()
                await until(lambda since=paused_since: time.monotonic() > since + 0.04)  # type: ignore[misc]

        async with AsyncClient(server.address, timeout_s=TIMEOUT_S) as client:
            results = [one async for one in client.top_k_stream(batches(), k=1)]
    assert [int(one.labels[0]) for one in results] == [0, 1, 2, 3]
