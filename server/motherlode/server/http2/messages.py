"""Messages of a call, cut out of the bytes of its stream."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import final

from motherlode.core.errors import InvalidInputError, RequestTooLargeError
from motherlode.server.status import UnimplementedError

_PREFIX = struct.Struct(">BL")
# For zlib: what kind of frame is around the compressed bytes.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
ACCEPTED_ENCODINGS = ",".join(("identity", *_WINDOW_BITS))


def prefixed(message: bytes) -> bytes:
    """A message as it travels: not compressed, its length, itself."""
    return _PREFIX.pack(0, len(message)) + message


@final
@dataclass(frozen=True, slots=True)
class Packed:
    """A message that is marked as compressed.

    Attributes:
        content: As it came.
    """

    content: bytes


@final
class MessageReader:
    """Collects the bytes of one stream until they make messages.

    What is compressed stays so until somebody wants it: a caller may send no more than there is
    room for, and that is counted in the bytes that he sends.

    Args:
        encoding: How messages that are marked as compressed are.
        max_bytes: Of one message, compressed and not.
    """

    __slots__ = ("_encoding", "_max_bytes", "_rest")

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes | Packed]:
        """Messages that these bytes complete.

        Raises:
            RequestTooLargeError: If one is too large.
        """
        if not self._rest and len(data) >= _PREFIX.size:
            is_compressed, size = _PREFIX.unpack_from(data)
            # By far the most frequent: one message in one frame.
            if len(data) == _PREFIX.size + size and not is_compressed and size <= self._max_bytes:
                return [data[_PREFIX.size :]]
        self._rest += data
        return self._cut()

    def finish(self) -> None:
        """No more bytes come.

        Raises:
            InvalidInputError: If a message has not come to its end.
        """
        if self._rest:
            actual = f"{len(self._rest)} bytes of one more"
            raise InvalidInputError("request", expected="whole messages", actual=actual)

    def unpack(self, message: bytes | Packed) -> bytes:
        """The message itself.

        Raises:
            RequestTooLargeError: If it is too large.
            InvalidInputError: If it cannot be unpacked.
            UnimplementedError: If it is compressed in a way that is not known here.
        """
        return self._unpacked(message.content) if isinstance(message, Packed) else message

    def _cut(self) -> list[bytes | Packed]:
        rest, start = self._rest, 0
        messages: list[bytes | Packed] = []
        while len(rest) - start >= _PREFIX.size:
            is_compressed, size = _PREFIX.unpack_from(rest, start)
            if size > self._max_bytes:
                self._refuse(size)
            stop = start + _PREFIX.size + size
            if stop > len(rest):
                break
            message = bytes(memoryview(rest)[start + _PREFIX.size : stop])
            messages.append(Packed(message) if is_compressed else message)
            start = stop
        del rest[:start]
        return messages

    def _unpacked(self, message: bytes) -> bytes:
        bits = _WINDOW_BITS.get(self._encoding)
        if bits is None:
            raise UnimplementedError(f"messages may be {ACCEPTED_ENCODINGS}, not {self._encoding}")
        unpacker = zlib.decompressobj(bits)
        try:
            unpacked = unpacker.decompress(message, self._max_bytes + 1)
        except zlib.error as error:
            expected = f"a message compressed with {self._encoding}"
            raise InvalidInputError("request", expected=expected, actual=error) from error
        if len(unpacked) > self._max_bytes:
            self._refuse(len(unpacked))
        if not unpacker.eof:
            expected = f"a whole message compressed with {self._encoding}"
            raise InvalidInputError("request", expected=expected, actual=f"{len(message)} bytes")
        return unpacked

    def _refuse(self, size: int) -> None:
        expected = f"at most {self._max_bytes} bytes"
        raise RequestTooLargeError("request", expected=expected, actual=f"{size} bytes")
