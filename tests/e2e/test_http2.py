"""The server's HTTP/2 over sockets: what is large, what is compressed, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import pytest
from h2.settings import SettingCodes

from motherlode.server.http2 import frames
from motherlode.server.http2.frames import Kind
from motherlode.server.http2.headers import block_of
from motherlode.server.http2.messages import MessageReader, Packed, prefixed
from tests.support.h2_caller import h2_caller
from tests.support.http2 import MIB, Frame, answers, cut
from tests.support.http2_server import LOOPS, ask, running
from tests.support.waiting import TIMEOUT_S, until


@pytest.mark.asyncio
async def test_a_large_answer_comes_whole_through_small_windows() -> None:
    async with running() as here:
        small = {SettingCodes.INITIAL_WINDOW_SIZE: 1500}
        async with h2_caller(here.port, small) as caller:
            heard = await caller.call("/test/Repeat", prefixed(b"300000"))
            assert heard.code is grpc.StatusCode.OK
            assert heard.messages == (await ask(here.channel, "/test/Repeat", b"300000"))[1]


@pytest.mark.asyncio
async def test_a_large_request_comes_whole_in_many_frames() -> None:
    message = bytes(i % 251 for i in range(3 * MIB))
    async with running() as here, h2_caller(here.port) as caller:
        heard = await caller.call("/test/Echo", prefixed(message))
        assert heard.messages == [message]
        echoed = here.channel.unary_unary("/test/EchoEach")
        assert (await echoed(message[:MIB], timeout=TIMEOUT_S)) == message[:MIB]


@pytest.mark.asyncio
async def test_headers_of_several_frames_are_read() -> None:
    async with running(max_metadata_bytes=2**17) as here, h2_caller(here.port) as caller:
        stream_id = caller.open("/test/Echo", [("x-long", "~" * 15_000)])
        await caller.send(stream_id, prefixed(b"hello"))
        await caller.until(lambda: caller.heard[stream_id].is_over)
    assert caller.heard[stream_id].messages == [b"hello"]


@pytest.mark.asyncio
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_requests_that_grpcs_client_compresses_are_read(
    compression: grpc.Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[Any] = []
    unpack = MessageReader.unpack

    def note(reader: MessageReader, message: Any) -> bytes:
        packed.append(isinstance(message, Packed))
        return unpack(reader, message)

    monkeypatch.setattr(MessageReader, "unpack", note)
    message = b"much the same " * 10_000
    async with running() as here:
        answer = await ask(here.channel, "/test/Echo", message, compression=compression)
        assert answer == (grpc.StatusCode.OK, [message])
        bomb = bytes(5 * MIB)
        code, _ = await ask(here.channel, "/test/Echo", bomb, compression=compression)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert packed == [True, True]


@pytest.mark.asyncio
async def test_who_does_not_read_cannot_go_on_sending() -> None:
    message = bytes(2**16)
    windows = {SettingCodes.INITIAL_WINDOW_SIZE: 2**17}
    async with running() as here, h2_caller(here.port, windows) as caller:
        caller.is_reading = False
        stream_id = caller.open("/test/EchoEach")
        await caller.round_trip()
        num_sent, data = 0, prefixed(message)
        while caller.h2.local_flow_control_window(stream_id) >= len(data):
            caller.h2.send_data(stream_id, data[:32_768])
            caller.h2.send_data(stream_id, data[32_768:65_536])
            caller.h2.send_data(stream_id, data[65_536:])
            num_sent += 1
            await caller.round_trip()
            assert num_sent < 100
        assert len(caller.heard[stream_id].data) <= 2**17
        caller.is_reading = True
        caller.h2.acknowledge_received_data(len(caller.heard[stream_id].data), stream_id)
        caller.h2.end_stream(stream_id)
        await caller.flush()
        await caller.until(lambda: caller.heard[stream_id].is_over)
    assert caller.heard[stream_id].messages == [message] * num_sent


@pytest.mark.asyncio
async def test_what_the_server_says_that_it_took_is_answered_when_it_stops() -> None:
    # In bytes: the package h2 takes the first GOAWAY for the end.
    target = [(":method", "POST"), (":scheme", "http"), (":path", "/test/Wait")]
    block = block_of([*target, (":authority", "test"), ("content-type", "application/grpc")])

    def call(stream_id: int) -> bytes:
        end = frames.END_STREAM
        data = frames.frame(Kind.DATA, end, stream_id, prefixed(b"hello"))
        return frames.head(stream_id, block, is_last=False) + data

    async with running() as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(frames.PREFACE + frames.settings({}) + call(1))
        await until(lambda: here.methods.num_entered == 1)
        stopping = asyncio.create_task(here.server.close(TIMEOUT_S))
        heard = [await read_frame(reader)]
        while heard[-1].kind is not Kind.PING:
            heard.append(await read_frame(reader))
        # On their way while the server says that it stops.
        writer.write(b"".join(map(call, range(3, 40, 2))))
        writer.write(frames.frame(Kind.PING, frames.ACK, 0, heard[-1].payload))
        await until(lambda: here.methods.num_entered == 20)
        assert not stopping.done()
        here.methods.release.set()
        while not reader.at_eof():
            heard += cut(await reader.read())
        await stopping
        writer.close()
    goaways = [struct.unpack(">LL", one.payload) for one in heard if one.kind is Kind.GOAWAY]
    assert goaways == [(2**31 - 1, 0), (39, 0)]
    assert [answers(heard, one) for one in range(1, 40, 2)] == [prefixed(b"hello")] * 20


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    head = await reader.readexactly(frames.HEADER_BYTES)
    size = int.from_bytes(head[:3], "big")
    return cut(head + await reader.readexactly(size))[0]


@pytest.mark.asyncio
async def test_calls_of_grpcs_client_that_were_begun_are_answered_when_the_server_stops() -> None:
    async with running() as here:
        calls = [asyncio.create_task(ask(here.channel, "/test/Wait", b"wait")) for _ in range(20)]
        await until(lambda: here.methods.num_entered == 20)
        stopping = asyncio.create_task(here.server.close(TIMEOUT_S))
        here.methods.release.set()
        assert await asyncio.gather(*calls) == [(grpc.StatusCode.OK, [b"wait"])] * 20
        await stopping
        assert here.server.connections == {}


@pytest.mark.asyncio
async def test_a_caller_who_says_nothing_does_not_keep_the_server_from_stopping() -> None:
    async with running() as here, h2_caller(here.port) as caller:
        await caller.round_trip()
        # It never reads that the server stops.
        _, writer = await asyncio.open_connection("127.0.0.1", here.port)
        async with asyncio.timeout(TIMEOUT_S):
            await here.server.close(TIMEOUT_S)
        writer.close()
        assert here.server.connections == {}


@pytest.mark.asyncio
async def test_no_call_of_many_at_once_fails_while_connections_grow_old() -> None:
    async with running(age_s=0.02) as here:

        async def ask_again() -> set[grpc.StatusCode]:
            return {(await ask(here.channel, "/test/Echo", b"hello"))[0] for _ in range(50)}

        codes = await asyncio.gather(*(ask_again() for _ in range(8)))
        assert here.server.counts().num_started == 400
    assert set().union(*codes) == {grpc.StatusCode.OK}


@pytest.mark.asyncio
async def test_nothing_stays_of_callers_who_vanish() -> None:
    async with running() as here:
        async with AsyncExitStack() as stack:
            for path in ("/test/Wait", "/test/Repeat", "/test/EchoEach") * 10:
                caller = await stack.enter_async_context(h2_caller(here.port))
                caller.h2.send_data(caller.open(path), prefixed(b"4000000"))
                await caller.flush()
            await until(lambda: here.methods.num_entered == 30)
        await until(lambda: not here.server.connections)
        counts = here.server.counts()
    assert (counts.num_started, counts.num_failed) == (30, 30)


async def come_and_stop(num_steps: int) -> None:
    async with running() as here:
        with socket.create_connection(("127.0.0.1", here.port)) as caller:
            # It is taken, or about to be, or stands.
            for _ in range(num_steps):
                await asyncio.sleep(0)
            await here.server.close(0.0)
            caller.settimeout(TIMEOUT_S)
            with suppress(ConnectionResetError):
                while await asyncio.to_thread(caller.recv, 100):
                    pass
        assert here.server.connections == {}


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("num_steps", range(6))
def test_a_connection_that_comes_as_the_server_stops_is_closed(
    num_steps: int, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(come_and_stop(num_steps))
    # What was left open would be told of now.
    gc.collect()


@pytest.mark.asyncio
async def test_a_connection_that_cannot_be_looked_after_does_not_free_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        peer = "ipv4:192.0.2.1:1"
        num_calls = 0
        is_under_way = False

        def look(self, _: float) -> None:
            raise ZeroDivisionError

        def drain(self) -> None:
            running_server.server.connections.pop(-1, None)

    async with running(handshake_s=0.02) as running_server:
        running_server.server.connections[-1] = Broken()  # type: ignore[assignment]
        reader, writer = await asyncio.open_connection("127.0.0.1", running_server.port)
        async with asyncio.timeout(TIMEOUT_S):
            await reader.read(-1)
        writer.close()
    assert "looking after ipv4:192.0.2.1:1 failed" in caplog.text
