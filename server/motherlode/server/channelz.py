"""`grpc.channelz.v1.Channelz`: calls and messages of each port, and of each connection to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_channelz.v1 import channelz_pb2 as pb
from grpc_channelz.v1 import channelz_pb2_grpc
from typing_extensions import override

from motherlode.server.http2.connection import Connection
from motherlode.server.http2.counts import Counts
from motherlode.server.port import Port

SERVICE = pb.DESCRIPTOR.services_by_name["Channelz"].full_name
# Where the caller does not say how many it wants.
_DEFAULT_RESULTS = 100
# Ids of sockets start anew for each server, and have to be different all the same.
_SOCKETS_PER_SERVER = 2**40


@final
class ChannelzServicer(channelz_pb2_grpc.ChannelzServicer):  # type: ignore[misc]
    """Answers for the ports of this process; channels it has none.

    Args:
        ports: In the order of their ids, which start at 1.
    """

    def __init__(self, ports: Sequence[Port]) -> None:
        self._ports = dict(enumerate(ports, 1))

    @override
    async def GetTopChannels(self, request: Any, context: Any) -> Any:
        return pb.GetTopChannelsResponse(end=True)

    @override
    async def GetServers(self, request: Any, context: Any) -> Any:
        wanted, is_end = _page(self._ports, request.start_server_id, request.max_results)
        servers = [_server(number, self._ports[number]) for number in wanted]
        return pb.GetServersResponse(server=servers, end=is_end)

    @override
    async def GetServer(self, request: Any, context: Any) -> Any:
        port = await self._find(request.server_id, context)
        return pb.GetServerResponse(server=_server(request.server_id, port))

    @override
    async def GetServerSockets(self, request: Any, context: Any) -> Any:
        port = await self._find(request.server_id, context)
        first = request.server_id * _SOCKETS_PER_SERVER
        ids = [first + number for number in port.server.connections]
        wanted, is_end = _page(ids, request.start_socket_id, request.max_results)
        refs = [pb.SocketRef(socket_id=number) for number in wanted]
        return pb.GetServerSocketsResponse(socket_ref=refs, end=is_end)

    @override
    async def GetSocket(self, request: Any, context: Any) -> Any:
        server_id, number = divmod(request.socket_id, _SOCKETS_PER_SERVER)
        port = self._ports.get(server_id)
        connection = None if port is None else port.server.connections.get(number)
        if connection is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no socket {request.socket_id}")
        assert connection is not None
        return pb.GetSocketResponse(socket=_socket(request.socket_id, connection))

    @override
    async def GetChannel(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "a server has no channels")

    @override
    async def GetSubchannel(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "a server has no channels")

    async def _find(self, server_id: int, context: Any) -> Port:
        port = self._ports.get(server_id)
        if port is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no server {server_id}")
        assert port is not None
        return port


def _page(ids: Any, start: int, max_results: int) -> tuple[list[int], bool]:
    """Ids from `start` on, and whether these are the last."""
    rest = sorted(number for number in ids if number >= start)
    size = max_results if max_results > 0 else _DEFAULT_RESULTS
    return rest[:size], len(rest) <= size


def _server(number: int, port: Port) -> Any:
    counts = port.server.counts()
    return pb.Server(
        ref=pb.ServerRef(server_id=number, name=port.field),
        data=pb.ServerData(
            calls_started=counts.num_started,
            calls_succeeded=counts.num_succeeded,
            calls_failed=counts.num_failed,
            last_call_started_timestamp=_timestamp(counts.last_started),
        ),
    )


def _socket(number: int, connection: Connection) -> Any:
    counts: Counts = connection.counts
    local, remote = connection.addresses()
    return pb.Socket(
        ref=pb.SocketRef(socket_id=number),
        data=pb.SocketData(
            streams_started=counts.num_started,
            streams_succeeded=counts.num_succeeded,
            streams_failed=counts.num_failed,
            messages_sent=counts.num_sent,
            messages_received=counts.num_received,
            keep_alives_sent=counts.num_pings,
            last_remote_stream_created_timestamp=_timestamp(counts.last_started),
        ),
        local=_address(local),
        remote=_address(remote),
    )


def _address(address: tuple[str, int] | None) -> Any:
    if address is None:
        return None
    packed = ip_address(address[0].partition("%")[0]).packed
    return pb.Address(tcpip_address=pb.Address.TcpIpAddress(ip_address=packed, port=address[1]))


def _timestamp(loop_s: float) -> Timestamp | None:
    """A time of the event loop's clock as one of the day; None for never."""
    if not loop_s:
        return None
    ago_s = asyncio.get_running_loop().time() - loop_s
    timestamp = Timestamp()
    timestamp.FromNanoseconds(time.time_ns() - int(ago_s * 1e9))
    return timestamp
