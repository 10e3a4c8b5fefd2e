"""A caller that speaks HTTP/2 by the package `h2`, and so by none of the server's own code."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, final

import grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from motherlode.server.http2.messages import MessageReader
from tests.support.http2 import codes
from tests.support.waiting import TIMEOUT_S

Fields = list[tuple[str, str]]


@final
@dataclass(slots=True)
class Heard:
    """What came of one stream.

    Attributes:
        headers: Of the answer, and after them its trailers.
        data: Its bytes.
        is_over: Whether its end has come.
        reset_code: Why it was cut short; None where it was not.
    """

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    is_over: bool = False
    reset_code: int | None = None

    @property
    def code(self) -> grpc.StatusCode:
        """The status of the call."""
        return codes(self.headers)

    @property
    def messages(self) -> list[Any]:
        """The messages of the answer."""
        return list(MessageReader("identity", 2**30).feed(bytes(self.data)))


@asynccontextmanager
async def h2_caller(
    port: int, settings: dict[int, int] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[H2Caller]:
    """A connection that has said its settings."""
    caller = H2Caller(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))
    try:
        caller.h2.initiate_connection()
        caller.h2.update_settings(settings or {})
        await caller.flush()
        yield caller
    finally:
        await caller.close()


@final
class H2Caller:
    """One connection.

    Attributes:
        h2: The state of the protocol, to send with; `flush` sends what it has made.
        heard: What came, by stream.
        num_pongs: Pings that were answered.
        goaways: Last stream and code of each GOAWAY.
        is_closed: Whether the server has closed the connection.
        is_reading: Whether the server gets room again for what was read.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.heard: dict[int, Heard] = {}
        self.num_pongs = 0
        self.goaways: list[tuple[int, int]] = []
        self.is_closed = False
        self.is_reading = True
        self._reader, self._writer = reader, writer

    def open(self, path: str, more: Iterable[tuple[str, str]] = ()) -> int:
        """Sends the headers of a call; gives its stream."""
        stream_id: int = self.h2.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
        kind = [("content-type", "application/grpc"), ("te", "trailers")]
        self.h2.send_headers(stream_id, [*fields, *kind, *more])
        self.heard[stream_id] = Heard()
        return stream_id

    async def call(self, path: str, data: bytes) -> Heard:
        """The answer to a request."""
        stream_id = self.open(path)
        await self.send(stream_id, data)
        await self.until(lambda: self.heard[stream_id].is_over)
        return self.heard[stream_id]

    async def send(self, stream_id: int, data: bytes) -> None:
        """Sends a request to its end, as the server has room for it."""
        while data:
            size = min(
                self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size
            )
            self.h2.send_data(stream_id, data[:size])
            data = data[size:]
            await (self.flush() if size else self.step())
        self.h2.end_stream(stream_id)
        await self.flush()

    async def flush(self) -> None:
        """Sends what was made."""
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    async def step(self) -> None:
        """Reads on."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                data = await self._reader.read(2**16)
            except ConnectionResetError:
                data = b""
        self.is_closed = not data
        for event in self.h2.receive_data(data):
            self._note(event)
        if not self.is_closed:
            await self.flush()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Reads until the condition holds."""
        while not condition():
            assert not self.is_closed, "the server has closed the connection"
            await self.step()

    async def until_closed(self) -> None:
        """Reads to the end."""
        while not self.is_closed:
            await self.step()

    async def round_trip(self) -> None:
        """Returns when the server has seen what was sent until now, and has answered it."""
        wanted = self.num_pongs + 1
        self.h2.ping(bytes(8))
        await self.flush()
        await self.until(lambda: self.num_pongs == wanted)

    async def close(self) -> None:
        """Closes the connection."""
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    def _note(self, event: Any) -> None:
        stream = self.heard.get(getattr(event, "stream_id", 0) or 0, Heard())
        if isinstance(event, ResponseReceived | TrailersReceived):
            stream.headers |= {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, DataReceived):
            stream.data += event.data
            if self.is_reading and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            stream.is_over = True
        elif isinstance(event, StreamReset):
            stream.is_over, stream.reset_code = True, event.error_code
        elif isinstance(event, PingAckReceived):
            self.num_pongs += event.ping_data == bytes(8)
        elif isinstance(event, ConnectionTerminated):
            self.goaways.append((event.last_stream_id or 0, int(event.error_code or 0)))
