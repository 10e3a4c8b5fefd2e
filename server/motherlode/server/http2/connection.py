"""One connection: frames in, frames out, and the streams between them (RFC 9113)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NoReturn, final

from typing_extensions import override

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
from motherlode.server.http2.method import Method
from motherlode.server.http2.outflow import Outflow, checked_window
from motherlode.server.http2.patience import Patience
from motherlode.server.http2.refusals import refusal_of
from motherlode.server.http2.strangers import answer_to_stranger, peer_name
from motherlode.server.http2.stream import STREAM_WINDOW, Stream

logger = logging.getLogger(__name__)

# Room for a caller's bytes, in all streams together.
_CONNECTION_WINDOW = 2**24
# Streams that are looked at in the time of one frame.
_STREAMS_PER_FRAME = 64
_DRAIN_PING = b"draining"
_KEEPALIVE_PING = b"are you?"


@final
class Connection(asyncio.Protocol):
    """The server's side of one connection.

    Attributes:
        peer: Address of the caller, as gRPC writes it.
        outflow: What waits to be sent.
        num_running: Methods that have not returned.
    """

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = host.limits
        self.loop = loop
        self.peer = ""
        self.counts = Counts()
        self.outflow = Outflow()
        self.num_running = 0
        self._host = host
        self._number = 0
        self._transport: Any = None
        self._streams: dict[int, Stream] = {}
        self._heads = HeadReader(host.limits.max_metadata_bytes)
        self._can_write = False
        # The last stream that was looked at, and the last that there was.
        self._last_id = self._last_seen_id = 0
        self._num_ungranted = 0
        self._patience = Patience()
        self._lifetime = Lifetime(host.limits, loop.time())
        self._is_final = False
        handlers: dict[int, FrameHandler] = {
            Kind.DATA: self._on_data,
            Kind.HEADERS: self._on_block,
            Kind.RST_STREAM: self._on_rst_stream,
            Kind.SETTINGS: self._on_settings,
            Kind.PUSH_PROMISE: self._on_push_promise,
            Kind.PING: self._on_ping,
            Kind.WINDOW_UPDATE: self._on_window_update,
        }
        self._reader: FrameReader | None = FrameReader(
            handlers, self._on_other, self._heads.max_block_bytes
        )

    # What the transport tells it.

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._can_write = True
        self.peer = peer_name(transport.get_extra_info("peername"))
        self._number = self._host.connected(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._end(ConnectionFaultError(Code.INADEQUATE_SECURITY, "ALPN has to choose h2"))
            return
        limits = self.limits
        told = {
            Setting.MAX_CONCURRENT_STREAMS: limits.max_calls,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
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
        self.outflow.is_paused = True

    @override
    def resume_writing(self) -> None:
        self.outflow.is_paused = False
        self.outflow.pump()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        # Without a reader, nothing refers to this connection in a circle.
        self._reader = self._transport = None
        self._can_write = False
        for stream in list(self._streams.values()):
            stream.cancel()
        self._host.disconnected(self._number)

    # What its streams need.

    def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        if self._can_write:
            self._transport.write(data)

    def forget(self, stream: Stream, *, is_good: bool) -> None:
        """A stream is over, well or not."""
        if is_good:
            self.counts.num_succeeded += 1
            self._patience.regain()
        else:
            self.counts.num_failed += 1
        self._streams.pop(stream.id, None)
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

    @property
    def was_made(self) -> bool:
        """Whether it ever stood."""
        return self._number > 0

    @property
    def is_under_way(self) -> bool:
        """Whether calls may come on it."""
        return self._reader is not None and self._reader.has_settings and not self._is_final

    def look(self, now: float) -> None:
        """Looks at the clock: at the loop's time `now`, is anything overdue?"""
        self._patience.renew()
        has_begun = self._reader is not None and self._reader.has_settings
        due = self._lifetime.due(now, is_under_way=has_begun, has_calls=bool(self._streams))
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
        self._can_write = False
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
            self._spend()
        stream = self._streams.get(stream_id)
        if stream is not None:
            data = frames.unpadded(payload, flags)
            stream.receive(data, len(payload), is_last=bool(flags & frames.END_STREAM))
        else:
            self._check_seen(stream_id)

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        # In any case, since later blocks may refer to it.
        head = self._heads.read(block)
        is_last = bool(flags & frames.END_STREAM)
        stream = self._streams.get(stream_id)
        if stream is not None:
            if not is_last:
                raise ConnectionFaultError(Code.PROTOCOL_ERROR, "a second head of a stream")
            stream.receive(b"", 0, is_last=True)
        elif not stream_id % 2:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, f"a caller opens stream {stream_id}")
        elif stream_id > self._last_seen_id:
            self._last_seen_id = stream_id
            if not self._is_final:
                self._last_id = stream_id
                self._open(stream_id, head, is_last=is_last)
        else:
            # It may be the end of what was answered before its end.
            self._spend()

    def _check_seen(self, stream_id: int) -> None:
        """Something has come about a stream that is not there; it has to be one that was."""
        if stream_id > self._last_seen_id or not stream_id % 2:
            why = f"a frame of stream {stream_id}, which was never opened"
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, why)

    def _open(self, stream_id: int, head: RequestHead, *, is_last: bool) -> None:
        if self.outflow.is_paused:
            # It has an answer in any case, and these are not fetched.
            self._spend(0)
        if max(self.num_running, len(self._streams)) >= self.limits.max_calls:
            self._spend()
            self.write(frames.rst_stream(stream_id, Code.REFUSED_STREAM))
            return
        self.counts.num_started += 1
        self.counts.last_started = self._lifetime.heard
        if head.http_status:
            self._answer_in_http(stream_id, head.http_status, is_last=is_last)
            return
        method = self._host.find(head.method)
        stream = Stream(self, stream_id, head, method or _NO_METHOD)
        self._streams[stream_id] = stream
        refusal = refusal_of(stream, head, method, self._host, self.outflow.num_unsent)
        if refusal is None:
            stream.begin()
        else:
            stream.refuse(refusal)
        if is_last:
            stream.receive(b"", 0, is_last=True)

    def _answer_in_http(self, stream_id: int, status: int, *, is_last: bool) -> None:
        self._spend()
        self.counts.num_failed += 1
        block = block_of([(":status", str(status))])
        end = b"" if is_last else frames.rst_stream(stream_id, Code.NO_ERROR)
        self.write(frames.head(stream_id, block, is_last=True) + end)

    def _on_rst_stream(self, _: int, stream_id: int, payload: bytes) -> None:
        frames.read_long(payload, Kind.RST_STREAM)
        self._spend()
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.cancel()
        else:
            self._check_seen(stream_id)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._check_whole(stream_id, "SETTINGS")
        self._spend()
        if flags & frames.ACK:
            if payload:
                raise ConnectionFaultError(
                    Code.FRAME_SIZE_ERROR, "an acknowledgement that says more"
                )
            return
        # Of one that comes twice in a frame, the last counts.
        told = dict(frames.read_settings(payload))
        size = told.get(Setting.MAX_FRAME_SIZE, self.outflow.frame_bytes)
        if not frames.INITIAL_FRAME_BYTES <= size <= frames.LARGEST_FRAME_BYTES:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, f"frames of {size} bytes")
        self.outflow.frame_bytes = min(size, MAX_FRAME_BYTES)
        if Setting.INITIAL_WINDOW_SIZE in told:
            self._change_stream_windows(told[Setting.INITIAL_WINDOW_SIZE])
        self.write(frame(Kind.SETTINGS, frames.ACK, 0))
        self.outflow.pump()

    def _change_stream_windows(self, size: int) -> None:
        self._spend(len(self._streams) // _STREAMS_PER_FRAME)
        self.outflow.stream_window = checked_window(size)
        for stream in self._streams.values():
            stream.widen(0)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._check_whole(stream_id, "PING")
        self._spend()
        if len(payload) != len(_DRAIN_PING):
            raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, "PING of a wrong length")
        if not flags & frames.ACK:
            self.write(frame(Kind.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN_PING and self._lifetime.drained is not None and not self._is_final:
            # What the peer sent before it heard of the end has come by now.
            self._is_final = True
            self.write(frames.goaway(self._last_id, Code.NO_ERROR))
            self._host.settled()
            self._close_if_done()

    def _on_window_update(self, _: int, stream_id: int, payload: bytes) -> None:
        increment = frames.read_long(payload, Kind.WINDOW_UPDATE) & frames.LARGEST_WINDOW
        self._spend()
        if not increment:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "a window grows by nothing")
        stream = self._streams.get(stream_id)
        if not stream_id:
            self.outflow.widen(increment)
        elif stream is not None:
            stream.widen(increment)
            self.outflow.pump()
        else:
            self._check_seen(stream_id)

    def _on_push_promise(self, *_: object) -> NoReturn:
        raise ConnectionFaultError(Code.PROTOCOL_ERROR, "callers push nothing")

    def _on_other(self, *_: object) -> None:
        self._spend()

    def _check_whole(self, stream_id: int, kind: str) -> None:
        if stream_id != frames.WHOLE_CONNECTION:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, f"{kind} of one stream")

    def _spend(self, cost: int = 1) -> None:
        """Something costs work and carries no call forward."""
        is_paused = self.outflow.is_paused
        num_unfetched = self._transport.get_write_buffer_size() if is_paused else 0
        self._patience.spend(num_unfetched, cost)


_NO_METHOD = Method(lambda *_: None, None, takes_stream=False, is_generator=False)
