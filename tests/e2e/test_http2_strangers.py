"""Those who come to a port and speak something else, or nothing, and what a port tells of all."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2 as pb
from grpc_channelz.v1 import channelz_pb2_grpc

from motherlode.server.http2.messages import prefixed
from motherlode.server.http2.server import GrpcServer
from tests.support.bundles import publish_tiny
from tests.support.certificates import Authority
from tests.support.h2_caller import h2_caller
from tests.support.http2 import Methods, limits
from tests.support.servers import running_server
from tests.support.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def running(
    tls: ssl.SSLContext | None = None, **changed: Any
) -> AsyncIterator[tuple[GrpcServer, int]]:
    server = GrpcServer(Methods().find, limits(**changed), tls=None if tls is None else lambda: tls)
    try:
        yield server, await server.listen("127.0.0.1", 0)
    finally:
        await server.close(0.0)


async def said_to(port: int, words: bytes) -> bytes:
    """All that the server says before it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(words)
        async with asyncio.timeout(TIMEOUT_S):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_who_speaks_http1_is_told_what_this_port_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running() as (_, port):
        answer = await said_to(port, b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"HTTP/1.1 505 " in head
    assert body == b"This port speaks gRPC over HTTP/2.\n"
    assert f"content-length: {len(body)}".encode() in head
    assert "this is not HTTP/2; is it HTTP/1?; the connection is closed" in caplog.text


async def test_who_speaks_tls_to_a_plain_port_is_turned_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with running() as (_, port):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
    assert "this is not HTTP/2; is it TLS?; the connection is closed" in caplog.text


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server and a caller who trusts it shake hands with."""
    authority = Authority(tmp_path)
    issued = authority.issue()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(issued.certificate, issued.key)
    server.set_alpn_protocols(["h2"])
    return server, ssl.create_default_context(cafile=authority.root)


async def test_who_chooses_h2_is_answered_over_tls(
    certified: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = certified
    client.set_alpn_protocols(["h2"])
    async with running(server) as (_, port), h2_caller(port, tls=client) as caller:
        heard = await caller.call("/test/Repeat", prefixed(b"200000"))
    assert heard.code is grpc.StatusCode.OK
    assert len(heard.data) == 200_005


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]], ids=["none", "another"])
async def test_who_does_not_choose_h2_is_turned_away(
    protocols: list[str], certified: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server, client = certified
    if protocols:
        client.set_alpn_protocols(protocols)
    async with running(server) as (_, port), h2_caller(port, tls=client) as caller:
        await caller.until_closed()
    inadequate_security = 12
    assert caller.goaways == [(0, inadequate_security)]


async def test_a_handshake_that_never_ends_counts_as_a_connection(
    certified: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, _ = certified
    async with running(server, max_connections=1, handshake_s=1000.0) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # They are taken in their order.
        assert await said_to(port, b"") == b""
        assert not reader.at_eof()
        writer.close()


async def test_a_handshake_that_never_ends_is_given_up_and_leaves_its_room(
    certified: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = certified
    client.set_alpn_protocols(["h2"])
    async with running(server, max_connections=1, handshake_s=0.2) as (_, port):
        assert await said_to(port, b"") == b""
        async with h2_caller(port, tls=client) as caller:
            assert (await caller.call("/test/Echo", prefixed(b"hello"))).messages == [b"hello"]


async def test_handshakes_that_fail_leave_room_for_others(
    certified: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = certified
    client.set_alpn_protocols(["h2"])
    async with running(server, max_connections=1) as (_, port):
        for _ in range(5):
            await said_to(port, b"this is no handshake at all")
        async with h2_caller(port, tls=client) as caller:
            assert (await caller.call("/test/Echo", prefixed(b"hello"))).messages == [b"hello"]


async def test_as_many_connections_as_there_may_be_are_taken_at_once() -> None:
    async with running(max_connections=50) as (server, port):
        connections = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", port) for _ in range(50))
        )
        await until(lambda: len(server.connections) == 50)
        assert await said_to(port, b"") == b""
        for _, writer in connections:
            writer.close()
        await until(lambda: not server.connections)


async def test_without_descriptors_the_server_waits_for_some(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, failures = socket.socket.accept, [OSError(errno.EMFILE, "too many open files")]

    def accept_later(listener: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept_later)
    async with running() as (_, port), h2_caller(port) as caller:
        assert (await caller.call("/test/Echo", prefixed(b"hello"))).messages == [b"hello"]
    assert "a connection could not be taken" in caplog.text


async def test_channelz_tells_of_ports_and_their_connections(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    async with (
        running_server(tmp_path) as server,
        grpc.aio.insecure_channel(server.readiness.admin) as channel,
    ):
        asked: Any = channelz_pb2_grpc.ChannelzStub(channel)
        await server.ask("topic7")
        first = await asked.GetServers(pb.GetServersRequest(max_results=1), timeout=TIMEOUT_S)
        assert [one.ref.name for one in first.server] == ["listen"]
        assert not first.end
        rest = await asked.GetServers(pb.GetServersRequest(start_server_id=2), timeout=TIMEOUT_S)
        assert [one.ref.name for one in rest.server] == ["admin"]
        assert rest.end
        one = await asked.GetServer(pb.GetServerRequest(server_id=1), timeout=TIMEOUT_S)
        assert (one.server.data.calls_started, one.server.data.calls_succeeded) == (1, 1)
        sockets = await asked.GetServerSockets(
            pb.GetServerSocketsRequest(server_id=1), timeout=TIMEOUT_S
        )
        (ref,) = sockets.socket_ref
        assert sockets.end
        found = await asked.GetSocket(
            pb.GetSocketRequest(socket_id=ref.socket_id), timeout=TIMEOUT_S
        )
        data, local = found.socket.data, found.socket.local.tcpip_address
        assert (data.streams_started, data.messages_sent, data.messages_received) == (1, 1, 1)
        assert data.HasField("last_remote_stream_created_timestamp")
        assert f"127.0.0.1:{local.port}" == server.address
        for call in (
            asked.GetServer(pb.GetServerRequest(server_id=9)),
            asked.GetServerSockets(pb.GetServerSocketsRequest(server_id=9)),
            asked.GetSocket(pb.GetSocketRequest(socket_id=ref.socket_id + 1)),
            asked.GetChannel(pb.GetChannelRequest(channel_id=1)),
            asked.GetSubchannel(pb.GetSubchannelRequest(subchannel_id=1)),
        ):
            assert await call.code() is grpc.StatusCode.NOT_FOUND
        top = await asked.GetTopChannels(pb.GetTopChannelsRequest(), timeout=TIMEOUT_S)
        assert top.end
        assert not top.channel
