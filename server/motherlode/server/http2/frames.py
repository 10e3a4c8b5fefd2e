"""Frames of HTTP/2 as bytes (RFC 9113, sections 4 and 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Length in two pieces, type, flags, stream.
HEADER: Final = struct.Struct(">BHBBL")
HEADER_BYTES: Final = 9
PRIORITY_BYTES: Final = 5
WHOLE_CONNECTION: Final = 0
LARGEST_STREAM_ID: Final = 2**31 - 1
LARGEST_WINDOW: Final = 2**31 - 1
# Of both sides, until they say otherwise.
INITIAL_WINDOW: Final = 65_535
INITIAL_FRAME_BYTES: Final = 16_384
LARGEST_FRAME_BYTES: Final = 2**24 - 1

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

_SETTING = struct.Struct(">HL")
_LONG = struct.Struct(">L")


@final
class Kind(IntEnum):
    """What a frame is for."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


@final
class Setting(IntEnum):
    """What one side tells the other about itself."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


@final
class Code(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12


@final
class ConnectionFaultError(Exception):
    """The peer broke the protocol so that nothing more of the connection can be understood.

    Attributes:
        code: What it is told.
    """

    def __init__(self, code: Code, why: str) -> None:
        self.code = code
        super().__init__(why)


def frame(kind: Kind, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def head(stream_id: int, block: bytes, *, is_last: bool) -> bytes:
    """A header block as frames; in several, where one would be larger than every peer takes."""
    flags = END_STREAM if is_last else 0
    if len(block) <= INITIAL_FRAME_BYTES:
        return frame(Kind.HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [
        block[start : start + INITIAL_FRAME_BYTES]
        for start in range(0, len(block), INITIAL_FRAME_BYTES)
    ]
    return b"".join(
        (
            frame(Kind.HEADERS, flags, stream_id, pieces[0]),
            *(frame(Kind.CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]),
            frame(Kind.CONTINUATION, END_HEADERS, stream_id, pieces[-1]),
        )
    )


def settings(values: dict[Setting, int]) -> bytes:
    """What this side tells about itself."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return frame(Kind.SETTINGS, 0, WHOLE_CONNECTION, payload)


def window_update(stream_id: int, increment: int) -> bytes:
    """Room for so many bytes more."""
    return frame(Kind.WINDOW_UPDATE, 0, stream_id, _LONG.pack(increment))


def rst_stream(stream_id: int, code: Code) -> bytes:
    """The end of a stream before its time."""
    return frame(Kind.RST_STREAM, 0, stream_id, _LONG.pack(code))


def goaway(last_stream_id: int, code: Code, why: str = "") -> bytes:
    """The end of a connection: later streams than this one are not looked at."""
    payload = _LONG.pack(last_stream_id) + _LONG.pack(code) + why.encode()
    return frame(Kind.GOAWAY, 0, WHOLE_CONNECTION, payload)


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Names and values.

    Raises:
        ConnectionFaultError: If it is no whole number of them.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    return _SETTING.iter_unpack(payload)


def read_long(payload: bytes, kind: Kind) -> int:
    """The number that is all there is in a frame.

    Raises:
        ConnectionFaultError: If there is more, or less.
    """
    if len(payload) != _LONG.size:
        raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, f"{kind.name} of a wrong length")
    number: int = _LONG.unpack(payload)[0]
    return number


def unpadded(payload: bytes, flags: int) -> bytes:
    """What a DATA or HEADERS frame holds besides its padding.

    Raises:
        ConnectionFaultError: If there is more padding than frame.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFaultError(Code.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
