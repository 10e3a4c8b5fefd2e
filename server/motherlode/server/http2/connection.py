"""One connection: frames in, frames out, and the streams between them (RFC 9113)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NoReturn, final

import grpc
from typing_extensions import override

from motherlode.core.errors import MotherlodeError
from motherlode.server.http2 import frames
from motherlode.server.http2.counts import Counts
from motherlode.server.http2.frame_reader import (
    MAX_FRAME_BYTES,
    FrameHandler,
    FrameReader,
    NotHttp2Error,
)
from motherlode.server.http2.frames import Code, ConnectionFaultError, Kind, Setting, frame
from motherlode.server.http2.headers import HeadReader, RequestHead, block_of
from motherlode.server.http2.host import Host
from motherlode.server.http2.lifetime import Due, Lifetime
from motherlode.server.http2.method import CallEndedError, Method
from motherlode.server.http2.strangers import answer_to_stranger, peer_name
from motherlode.server.http2.stream import Stream
from motherlode.server.status import failure_of

logger = logging.getLogger(__name__)

# Room for a caller's bytes: in one stream, and in all together.
_STREAM_WINDOW = 2**20
_CONNECTION_WINDOW = 2**24
# Frames that carry no call forward, between two looks of the clock; and bytes that nobody fetches.
_MAX_IDLE_FRAMES = 10_000
_MAX_UNFETCHED_BYTES = 2**22
# What is sent at once, although more may come in the same turn of the loop.
_MAX_OUTBOX_BYTES = 2**16
_DRAIN_PING = b"draining"
_KEEPALIVE_PING = b"are you?"


@final
class Connection(asyncio.Protocol):
    """The server's side of one connection.

    Attributes:
        peer: Address of the caller, as gRPC writes it.
        window: Bytes that the peer has room for in all streams together.
        peer_stream_window: Bytes that it has room for in a new stream.
        waiting: Streams that have more to send than there is room for.
        num_running: Methods that have not returned.
    """

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = host.limits
        self.loop = loop
        self.peer = ""
        self.counts = Counts()
        self.window = self.peer_stream_window = frames.INITIAL_WINDOW
        self.waiting: dict[int, Stream] = {}
        self.num_running = 0
        self._host = host
        self._number = 0
        self._transport: Any = None
        self._streams: dict[int, Stream] = {}
        self._heads = HeadReader(host.limits.max_metadata_bytes)
        self._peer_frame_bytes = frames.INITIAL_FRAME_BYTES
        self._is_paused = False
        self._outbox: list[bytes] = []
        self._num_outbox_bytes = 0
        self._last_id = 0
        self._num_ungranted = 0
        self._num_idle_frames = 0
        self._lifetime = Lifetime(host.limits, loop.time())
        self._is_final = False
        handlers: dict[int, FrameHandler] = {
            Kind.DATA: self._on_data,
            Kind.HEADERS: self._on_block,
            Kind.PRIORITY: self._on_nothing,
            Kind.RST_STREAM: self._on_rst_stream,
            Kind.SETTINGS: self._on_settings,
            Kind.PUSH_PROMISE: self._on_push_promise,
            Kind.PING: self._on_ping,
            Kind.WINDOW_UPDATE: self._on_window_update,
        }
        self._reader: FrameReader | None = FrameReader(handlers, self._heads.max_block_bytes)

    # What the transport tells it.

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.peer = peer_name(transport.get_extra_info("peername"))
        self._number = self._host.connected(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._end(ConnectionFaultError(Code.INADEQUATE_SECURITY, "ALPN has to choose h2"))
            return
        limits = self.limits
        told = {
            Setting.MAX_CONCURRENT_STREAMS: limits.max_calls,
            Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: limits.max_metadata_bytes,
        }
        room = frames.window_update(0, _CONNECTION_WINDOW - frames.INITIAL_WINDOW)
        self.write(frames.settings(told) + room)

    @override
    def data_received(self, data: bytes) -> None:
        self._lifetime.heard = self.loop.time()
        self._lifetime.pinged = None
        if self._reader is None:
            # Nothing is read any more.
            return
        try:
            self._reader.feed(data)
        except NotHttp2Error as error:
            self._turn_away(error.start)
        except ConnectionFaultError as fault:
            self._end(fault)

    @override
    def pause_writing(self) -> None:
        self._is_paused = True

    @override
    def resume_writing(self) -> None:
        self._is_paused = False
        self.pump()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._is_paused = True
        self._transport = None
        for stream in list(self._streams.values()):
            stream.cancel()
        self._host.disconnected(self._number)

    # What its streams need.

    @property
    def room(self) -> int:
        """Largest DATA frame that can be sent now; negative where none can."""
        return -1 if self._is_paused else min(self.window, self._peer_frame_bytes)

    def write(self, data: bytes) -> None:
        """Sends bytes as they are; those of one turn of the loop together."""
        self._outbox.append(data)
        self._num_outbox_bytes += len(data)
        # To wait for company is of use only where others are about to be answered.
        if len(self._streams) < 2 or self._num_outbox_bytes > _MAX_OUTBOX_BYTES:
            self._flush()
        elif len(self._outbox) == 1:
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._transport is not None and self._outbox:
            self._transport.write(b"".join(self._outbox))
        self._outbox.clear()
        self._num_outbox_bytes = 0

    def grant(self, stream_id: int, num_bytes: int) -> int:
        """Lets the peer send more in a stream, once it is worth a frame; gives what is left."""
        if num_bytes < _STREAM_WINDOW // 2:
            return num_bytes
        self.write(frames.window_update(stream_id, num_bytes))
        return 0

    def pump(self) -> None:
        """Sends what waits, one frame of each stream in turn, as long as there is room."""
        has_room = True
        while has_room and not self._is_paused:
            has_room = False
            for stream in list(self.waiting.values()):
                has_room |= stream.pump()

    def forget(self, stream: Stream, *, is_good: bool) -> None:
        """A stream is over, well or not."""
        self.counts.num_succeeded += is_good
        self.counts.num_failed += not is_good
        self._streams.pop(stream.id, None)
        self.waiting.pop(stream.id, None)
        self._lifetime.used = self.loop.time()
        self._close_if_done()

    def count_done(self, _: asyncio.Task[None]) -> None:
        """A method has returned."""
        self.num_running -= 1

    # What its port asks of it.

    @property
    def num_calls(self) -> int:
        """Calls under way."""
        return len(self._streams)

    def look(self, now: float) -> None:
        """Looks at the clock: at the loop's time `now`, is anything overdue?"""
        self._num_idle_frames = 0
        is_under_way = self._reader is not None and self._reader.has_settings
        due = self._lifetime.due(now, is_under_way=is_under_way, has_calls=bool(self._streams))
        if due is Due.ABORT:
            self.abort()
        elif due is Due.END:
            self._end(ConnectionFaultError(Code.NO_ERROR, "the connection has become too old"))
        elif due is Due.DRAIN:
            self.drain()
        elif due is Due.PING:
            self._lifetime.pinged = now
            self.counts.num_pings += 1
            self.write(frame(Kind.PING, 0, 0, _KEEPALIVE_PING))

    def drain(self) -> None:
        """Asks the peer for no further calls on this connection; closes it after the last."""
        if self._lifetime.drained is None:
            self._lifetime.drained = self.loop.time()
            # In two steps, so that calls that are on their way are still taken.
            self.write(frames.goaway(frames.LARGEST_STREAM_ID, Code.NO_ERROR))
            self.write(frame(Kind.PING, 0, 0, _DRAIN_PING))

    def stop(self) -> None:
        """Ends the connection; calls that the peer sent later than it knows of were not begun."""
        self._end(ConnectionFaultError(Code.NO_ERROR, "the server stops"))

    def abort(self) -> None:
        """Ends the connection and its calls at once."""
        if self._transport is not None:
            self._transport.abort()

    def addresses(self) -> tuple[Any, Any]:
        """Addresses of this side and the other; None where it is closed."""
        if self._transport is None:
            return None, None
        of = self._transport.get_extra_info
        return of("sockname"), of("peername")

    def _end(self, fault: ConnectionFaultError) -> None:
        if fault.code is not Code.NO_ERROR:
            logger.info("%s: %s; the connection is closed", self.peer, fault)
        self._reader = None
        self.write(frames.goaway(self._last_id, fault.code, str(fault)))
        for stream in list(self._streams.values()):
            stream.cancel()
        self._close()

    def _close(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _close_if_done(self) -> None:
        if self._lifetime.drained is None or self._streams:
            return
        self._host.settled()
        if self._is_final:
            self._close()

    def _turn_away(self, start: bytes) -> None:
        self._reader = None
        answer, hint = answer_to_stranger(start)
        self.write(answer)
        logger.info("%s: this is not HTTP/2%s; the connection is closed", self.peer, hint)
        self._close()

    # Frames.

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._num_ungranted += len(payload)
        if self._num_ungranted >= _CONNECTION_WINDOW // 2:
            self.write(frames.window_update(frames.WHOLE_CONNECTION, self._num_ungranted))
            self._num_ungranted = 0
        if not payload:
            self._count_idle_frame()
        stream = self._streams.get(stream_id)
        if stream is not None:
            data = frames.unpadded(payload, flags)
            stream.receive(data, is_last=bool(flags & frames.END_STREAM))
        elif stream_id > self._last_id or not stream_id % 2:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "DATA of a stream never opened")

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        # In any case, since later blocks may refer to it.
        head = self._heads.read(block)
        is_last = bool(flags & frames.END_STREAM)
        stream = self._streams.get(stream_id)
        if stream is not None:
            if not is_last:
                raise ConnectionFaultError(Code.PROTOCOL_ERROR, "a second head of a stream")
            stream.receive(b"", is_last=True)
        elif not stream_id % 2:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, f"a caller opens stream {stream_id}")
        elif stream_id > self._last_id and not self._is_final:
            self._last_id = stream_id
            self._open(stream_id, head, is_last=is_last)

    def _open(self, stream_id: int, head: RequestHead, *, is_last: bool) -> None:
        if max(self.num_running, len(self._streams)) >= self.limits.max_calls:
            self.write(frames.rst_stream(stream_id, Code.REFUSED_STREAM))
            return
        self._num_idle_frames = 0
        self.counts.num_started += 1
        self.counts.last_started = self._lifetime.heard
        if head.http_status:
            status = block_of([(":status", str(head.http_status))])
            flags = frames.END_HEADERS | frames.END_STREAM
            self.write(frame(Kind.HEADERS, flags, stream_id, status))
            return
        method = self._host.find(head.method)
        stream = Stream(self, stream_id, head, method or _NO_METHOD)
        self._streams[stream_id] = stream
        refusal = self._refusal_of(stream, head, method)
        if refusal is None:
            stream.begin()
        else:
            stream.refuse(refusal)
        if is_last:
            stream.receive(b"", is_last=True)

    def _refusal_of(
        self, stream: Stream, head: RequestHead, method: Method | None
    ) -> CallEndedError | None:
        """Why a call is not begun; None where it is, and then its stream knows who asks."""
        if head.refusal is not None:
            return CallEndedError(*failure_of(head.refusal))
        try:
            stream.caller = self._host.admit(head.method, head.metadata) or self.peer
        except MotherlodeError as error:
            return CallEndedError(*failure_of(error))
        if method is None:
            unknown = f"there is no method {head.method[:200]}"
            return CallEndedError(grpc.StatusCode.UNIMPLEMENTED, unknown)
        return None

    def _on_rst_stream(self, _: int, stream_id: int, payload: bytes) -> None:
        frames.read_long(payload, Kind.RST_STREAM)
        if stream_id > self._last_id:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "the end of a stream never opened")
        self._count_idle_frame()
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.cancel()

    def _on_settings(self, flags: int, _: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        self._count_idle_frame()
        for name, value in frames.read_settings(payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._change_stream_windows(value)
            elif name == Setting.MAX_FRAME_SIZE:
                if not frames.INITIAL_FRAME_BYTES <= value <= frames.LARGEST_FRAME_BYTES:
                    raise ConnectionFaultError(Code.PROTOCOL_ERROR, f"frames of {value} bytes")
                self._peer_frame_bytes = min(value, MAX_FRAME_BYTES)
        self.write(frame(Kind.SETTINGS, frames.ACK, 0))
        self.pump()

    def _change_stream_windows(self, size: int) -> None:
        if size > frames.LARGEST_WINDOW:
            raise ConnectionFaultError(Code.FLOW_CONTROL_ERROR, f"a window of {size} bytes")
        for stream in self._streams.values():
            stream.window += size - self.peer_stream_window
        self.peer_stream_window = size

    def _on_ping(self, flags: int, _: int, payload: bytes) -> None:
        if len(payload) != len(_DRAIN_PING):
            raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, "PING of a wrong length")
        if not flags & frames.ACK:
            self._count_idle_frame()
            self.write(frame(Kind.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN_PING and self._lifetime.drained is not None and not self._is_final:
            # What the peer sent before it heard of the end has come by now.
            self._is_final = True
            self.write(frames.goaway(self._last_id, Code.NO_ERROR))
            self._close_if_done()

    def _on_window_update(self, _: int, stream_id: int, payload: bytes) -> None:
        increment = frames.read_long(payload, Kind.WINDOW_UPDATE) & frames.LARGEST_WINDOW
        if not increment:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "a window grows by nothing")
        target = self._streams.get(stream_id) if stream_id else self
        if target is None:
            return
        target.window += increment
        if target.window > frames.LARGEST_WINDOW:
            raise ConnectionFaultError(Code.FLOW_CONTROL_ERROR, "a window of too many bytes")
        if self.waiting:
            self.pump()

    def _on_push_promise(self, *_: object) -> NoReturn:
        raise ConnectionFaultError(Code.PROTOCOL_ERROR, "callers push nothing")

    def _on_nothing(self, *_: object) -> None:
        self._count_idle_frame()

    def _count_idle_frame(self) -> None:
        """Something costs work and carries no call forward."""
        self._num_idle_frames += 1
        is_flooded = self._num_idle_frames > _MAX_IDLE_FRAMES
        if is_flooded or self._transport.get_write_buffer_size() > _MAX_UNFETCHED_BYTES:
            raise ConnectionFaultError(Code.ENHANCE_YOUR_CALM, "too many frames of no use")


_NO_METHOD = Method(lambda *_: None, None, takes_stream=False, is_generator=False)
