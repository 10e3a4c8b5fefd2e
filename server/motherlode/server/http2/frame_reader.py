"""Cuts what a caller sends into frames, and puts header blocks together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from motherlode.server.http2 import frames
from motherlode.server.http2.frames import Code, ConnectionFaultError, Kind

# Frames are cut out of what has come, so they may be no larger than what is worth to wait for.
MAX_FRAME_BYTES = 2**16
# As plain numbers, which are compared for each frame.
_HEADERS, _CONTINUATION = int(Kind.HEADERS), int(Kind.CONTINUATION)
# A block may be cut into so many frames; an honest caller needs a few.
_MAX_CONTINUATIONS = 64

FrameHandler = Callable[[int, int, bytes], None]


@final
class NotHttp2Error(Exception):
    """What came is not the start of HTTP/2.

    Attributes:
        start: Its first bytes.
    """

    def __init__(self, start: bytes) -> None:
        self.start = start
        super().__init__("this is not HTTP/2")


@final
class FrameReader:
    """Reads one connection from its first byte on.

    Args:
        handlers: Get the flags, the stream and the content of each frame, without padding. Header
            blocks come whole, with the flags of their first frame.
        on_other: Gets frames of other kinds, which have to be borne.
        max_block_bytes: Largest header block.

    Attributes:
        has_settings: Whether the connection has got under way.
    """

    def __init__(
        self,
        handlers: Mapping[int, FrameHandler],
        on_other: FrameHandler,
        max_block_bytes: int,
    ) -> None:
        self.has_settings = False
        self._on_other = on_other
        self._handlers = handlers
        self._on_block = handlers[Kind.HEADERS]
        self._max_block_bytes = max_block_bytes
        self._rest = b""
        self._has_preface = False
        # A header block that is not whole: its stream, its flags, and its pieces.
        self._block: tuple[int, int, list[bytes]] | None = None

    def feed(self, data: bytes) -> None:
        """Reads on.

        Raises:
            NotHttp2Error: If the first bytes are wrong.
            ConnectionFaultError: If the peer breaks the protocol, or a handler finds so.
        """
        buffer = self._rest + data if self._rest else data
        if not self._has_preface:
            buffer = self._cut_preface(buffer)
        self._rest = self._cut_frames(buffer) if self._has_preface else buffer

    def _cut_preface(self, buffer: bytes) -> bytes:
        start = buffer[: len(frames.PREFACE)]
        if not frames.PREFACE.startswith(start):
            raise NotHttp2Error(start)
        self._has_preface = len(start) == len(frames.PREFACE)
        return buffer[len(start) :] if self._has_preface else buffer

    def _cut_frames(self, buffer: bytes) -> bytes:
        position, end = 0, len(buffer)
        while end - position >= frames.HEADER_BYTES:
            high, low, kind, flags, stream_id = frames.HEADER.unpack_from(buffer, position)
            start = position + frames.HEADER_BYTES
            size = high << 16 | low
            if size > MAX_FRAME_BYTES:
                raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if start + size > end:
                break
            position = start + size
            self._check_order(kind, flags)
            stream_id &= frames.LARGEST_STREAM_ID
            payload = buffer[start:position]
            # No table of its own methods: it would refer to itself, and outlive its connection.
            if kind == _HEADERS:
                self._on_headers(flags, stream_id, payload)
            elif kind == _CONTINUATION:
                self._on_continuation(flags, stream_id, payload)
            else:
                self._handlers.get(kind, self._on_other)(flags, stream_id, payload)
        return buffer[position:]

    def _check_order(self, kind: int, flags: int) -> None:
        if not self.has_settings:
            if kind != Kind.SETTINGS or flags & frames.ACK:
                raise ConnectionFaultError(Code.PROTOCOL_ERROR, "SETTINGS have to come first")
            self.has_settings = True
        elif self._block is not None and kind != _CONTINUATION:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "CONTINUATION has to come next")

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = frames.unpadded(payload, flags)
        if flags & frames.PRIORITIZED:
            if len(block) < frames.PRIORITY_BYTES:
                raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, "HEADERS without their priority")
            block = block[frames.PRIORITY_BYTES :]
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream_id, block)
        else:
            self._block = stream_id, flags, [block]

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, pieces = self._block
        pieces.append(payload)
        is_long = sum(map(len, pieces)) > self._max_block_bytes
        if is_long or len(pieces) > _MAX_CONTINUATIONS:
            raise ConnectionFaultError(Code.ENHANCE_YOUR_CALM, "far too many headers")
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(first_flags, stream_id, b"".join(pieces))
