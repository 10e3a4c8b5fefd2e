"""A port of the server's HTTP/2 with small methods, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop

from motherlode.server.http2.server import GrpcServer
from tests.support.http2 import Methods, limits
from tests.support.waiting import TIMEOUT_S

ALONE = (("grpc.use_local_subchannel_pool", 1),)
# That of the standard library, and the one that the server takes where it can.
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@dataclass
class Running:
    """A server with the small methods, and a channel to it.

    Attributes:
        server: The port.
        methods: What it has.
        port: Its number.
        channel: Of gRPC's own client.
    """

    server: GrpcServer
    methods: Methods
    port: int
    channel: grpc.aio.Channel


@asynccontextmanager
async def running(**changed: Any) -> AsyncIterator[Running]:
    """A server whose limits are those of tests, but for some."""
    methods = Methods()
    server = GrpcServer(methods.find, limits(**changed))
    port = await server.listen("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", ALONE) as channel:
            yield Running(server, methods, port, channel)
    finally:
        await server.close(0.0)


async def ask(
    channel: grpc.aio.Channel, path: str, message: bytes = b"", **options: Any
) -> tuple[grpc.StatusCode, list[bytes]]:
    """What gRPC's own client gets."""
    method: Any = channel.unary_unary(path)
    call = method(message, timeout=TIMEOUT_S, **options)
    try:
        return grpc.StatusCode.OK, [await call]
    except grpc.aio.AioRpcError as error:
        return error.code(), []


async def ask_each(
    channel: grpc.aio.Channel, path: str, messages: list[bytes]
) -> tuple[grpc.StatusCode, list[bytes]]:
    """What it gets for a stream."""
    method: Any = channel.stream_stream(path)
    call = method(iter(messages), timeout=TIMEOUT_S)
    found = [message async for message in call]
    return await call.code(), found
