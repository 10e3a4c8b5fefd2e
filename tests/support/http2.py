"""Both ends of the server's HTTP/2 for tests: a port of small methods, and a caller in bytes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, final

import grpc
from hpack import Decoder, Encoder

from motherlode.core.errors import MotherlodeError
from motherlode.server.http2 import frames
from motherlode.server.http2.connection import Connection
from motherlode.server.http2.frames import Kind
from motherlode.server.http2.headers import Metadata
from motherlode.server.http2.limits import ConnectionLimits
from motherlode.server.http2.messages import prefixed
from motherlode.server.http2.method import Method

Headers = dict[str, str]
MIB = 2**20


def limits(**changed: Any) -> ConnectionLimits:
    """Limits that no test meets by chance."""
    usual = {
        "max_message_bytes": 4 * MIB,
        "max_metadata_bytes": 16_384,
        "max_connections": 100,
        "max_calls": 100,
        "handshake_s": 60.0,
        "keepalive_s": 600.0,
        "keepalive_timeout_s": 60.0,
        "idle_s": 600.0,
        "age_s": 600.0,
        "grace_s": 60.0,
    }
    return ConnectionLimits(**{**usual, **changed})


@final
class Methods:
    """Small methods by name.

    `/test/Echo` gives back what it gets, `/test/Repeat` so many bytes as its request says in
    decimal, `/test/Hang` nothing; `/test/EchoEach` is a stream in both directions.

    Attributes:
        num_entered: Calls that any of them was given.
        release: Lets the calls of `/test/Wait` go on.
    """

    def __init__(self) -> None:
        self.num_entered = 0
        self.release = asyncio.Event()
        self._methods = {
            "/test/Echo": Method(self._echo, None, takes_stream=False, is_generator=False),
            "/test/Repeat": Method(self._repeat, None, takes_stream=False, is_generator=False),
            "/test/Wait": Method(self._wait, None, takes_stream=False, is_generator=False),
            "/test/Fail": Method(self._fail, None, takes_stream=False, is_generator=False),
            "/test/Abort": Method(self._abort, None, takes_stream=False, is_generator=False),
            "/test/EchoEach": Method(self._echo_each, None, takes_stream=True, is_generator=True),
        }

    def find(self, path: str) -> Method | None:
        """The method of this full name."""
        return self._methods.get(path)

    def add(self, path: str, behavior: Callable[..., Any], *, takes_stream: bool) -> None:
        """Adds a method that yields its answers."""
        self._methods[path] = Method(behavior, None, takes_stream=takes_stream, is_generator=True)

    def note_unread(self, path: str, note: Callable[[Exception], None]) -> None:
        """Has a method tell why bytes are no request for it."""
        self._methods[path] = replace(self._methods[path], note_unread=note)

    async def _echo(self, request: bytes, _: Any) -> bytes:
        self.num_entered += 1
        return request

    async def _repeat(self, request: bytes, _: Any) -> bytes:
        self.num_entered += 1
        return bytes(i % 251 for i in range(1000)) * (min(int(request), 5 * MIB) // 1000)

    async def _wait(self, request: bytes, _: Any) -> bytes:
        self.num_entered += 1
        await self.release.wait()
        return request

    async def _fail(self, *_: Any) -> bytes:
        self.num_entered += 1
        raise ZeroDivisionError

    async def _abort(self, _: bytes, context: Any) -> None:
        self.num_entered += 1
        await context.abort(grpc.StatusCode.ABORTED, "no")

    async def _echo_each(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        self.num_entered += 1
        async for request in requests:
            yield request


@final
class FakeTransport:
    """Keeps what is written.

    Attributes:
        sent: What was written and not looked at yet.
        num_unfetched: Bytes that the peer is said not to have fetched.
        is_closed: Whether it was closed.
        is_aborted: Whether it was given up.
    """

    def __init__(self) -> None:
        self.sent = bytearray()
        self.num_unfetched = 0
        self.is_closed = self.is_aborted = False

    def write(self, data: bytes) -> None:
        """As a transport has it."""
        assert not self.is_closed, "something is sent on a connection that was closed"
        self.sent += data

    def get_write_buffer_size(self) -> int:
        """As a transport has it."""
        return self.num_unfetched

    def get_extra_info(self, name: str) -> Any:
        """As a transport has it."""
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 6)}.get(name)

    def close(self) -> None:
        """As a transport has it."""
        self.is_closed = True

    def abort(self) -> None:
        """As a transport has it."""
        self.is_closed = self.is_aborted = True


@final
class FakeHost:
    """A port without a socket."""

    def __init__(self, methods: Methods, **changed: Any) -> None:
        self.limits = limits(**changed)
        self.refusal: MotherlodeError | None = None
        self.gone: list[int] = []
        self._methods = methods

    def find(self, path: str) -> Method | None:
        """The method of this full name."""
        return self._methods.find(path)

    def admit(self, path: str, metadata: Metadata) -> str:
        """Who asks."""
        del path, metadata
        if self.refusal is not None:
            raise self.refusal
        return ""

    def connected(self, connection: Connection) -> int:
        """A connection stands."""
        del connection
        return 1

    def disconnected(self, number: int) -> None:
        """It is gone."""
        self.gone.append(number)

    def settled(self) -> None:
        """It has no more calls."""


class Frame(NamedTuple):
    """One frame of the server."""

    kind: Kind
    flags: int
    stream_id: int
    payload: bytes


def cut(data: bytes) -> list[Frame]:
    """The frames that some bytes are; all of them have to be whole."""
    found, position = [], 0
    while position < len(data):
        high, low, kind, flags, stream_id = frames.HEADER.unpack_from(data, position)
        start, size = position + frames.HEADER_BYTES, high << 16 | low
        position = start + size
        assert position <= len(data), "half a frame"
        found.append(Frame(Kind(kind), flags, stream_id, data[start:position]))
    return found


@final
class Dialogue:
    """A caller of a connection that has no socket, frame by frame.

    Attributes:
        connection: The server's side.
        transport: What it writes to.
        host: Its port.
        methods: What can be called.
    """

    def __init__(self, *, greets: bool = True, **changed: Any) -> None:
        self.methods = Methods()
        self.host = FakeHost(self.methods, **changed)
        self.connection = Connection(self.host, asyncio.get_running_loop())
        self.transport = FakeTransport()
        self.connection.connection_made(self.transport)
        self._encoder, self._decoder = Encoder(), Decoder()
        if greets:
            self.say(frames.PREFACE + frames.settings({}))
            self.heard()

    def say(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.connection.data_received(data)

    def send(self, kind: Kind, flags: int, stream_id: int, payload: bytes = b"") -> None:
        """Sends one frame."""
        self.say(frames.frame(kind, flags, stream_id, payload))

    def block(self, path: str = "/test/Echo", **more: str) -> bytes:
        """The headers of a call, with `more` of them; `_` stands for `-`."""
        usual = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
        kind = {"content-type": "application/grpc", "te": "trailers"}
        others = {name.replace("_", "-"): value for name, value in more.items()}
        block: bytes = self._encoder.encode({**usual, **kind, **others}.items())
        return block

    def open(self, stream_id: int, path: str = "/test/Echo", **more: str) -> None:
        """Sends the headers of a call."""
        self.send(Kind.HEADERS, frames.END_HEADERS, stream_id, self.block(path, **more))

    def data(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        """Sends one DATA frame."""
        self.send(Kind.DATA, frames.END_STREAM if is_last else 0, stream_id, data)

    def call(self, stream_id: int, message: bytes = b"hello", path: str = "/test/Echo") -> None:
        """Sends a whole call of one message."""
        self.open(stream_id, path)
        self.data(stream_id, prefixed(message), is_last=True)

    def widen(self, stream_id: int, increment: int) -> None:
        """Gives the server more room."""
        self.send(Kind.WINDOW_UPDATE, 0, stream_id, struct.pack(">L", increment))

    def reset(self, stream_id: int) -> None:
        """Gives up a call."""
        self.send(Kind.RST_STREAM, 0, stream_id, struct.pack(">L", frames.Code.CANCEL))

    def heard(self) -> list[Frame]:
        """What the server sent since the last look."""
        data = bytes(self.transport.sent)
        self.transport.sent.clear()
        return cut(data)

    def headers(self, frame: Frame) -> Headers:
        """What a HEADERS frame of the server says."""
        return {str(name): str(value) for name, value in self._decoder.decode(frame.payload)}

    async def settle(self) -> list[Frame]:
        """What the server sent until now, after its methods have run."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self.heard()

    def fault(self) -> frames.Code | None:
        """What the server closed the connection with; None where it did not."""
        parting = [one for one in self.heard() if one.kind is Kind.GOAWAY]
        if not self.transport.is_closed:
            assert not parting
            return None
        return frames.Code(struct.unpack(">LL", parting[-1].payload[:8])[1])


def answers(heard: list[Frame], stream_id: int) -> bytes:
    """The bytes of a stream's DATA frames."""
    return b"".join(
        one.payload for one in heard if one.kind is Kind.DATA and one.stream_id == stream_id
    )


def codes(trailers: Mapping[str, str]) -> grpc.StatusCode:
    """The status that trailers say."""
    by_number = {code.value[0]: code for code in grpc.StatusCode}
    return by_number[int(trailers["grpc-status"])]
