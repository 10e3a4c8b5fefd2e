"""Messages of a call, cut out of the bytes of its stream."""

from __future__ import annotations

import struct
import zlib
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
class MessageReader:
    """Collects the bytes of one stream until they make messages.

    Args:
        encoding: How messages that are marked as compressed are.
        max_bytes: Of one message, compressed and not.
    """

    __slots__ = ("_encoding", "_max_bytes", "_rest")

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._rest = bytearray()

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing of a message is there that has not come to its end."""
        return not self._rest

    def feed(self, data: bytes) -> list[bytes]:
        """Messages that these bytes complete.

        Raises:
            RequestTooLargeError: If one is too large.
            InvalidInputError: If one cannot be unpacked.
            UnimplementedError: If one is compressed in a way that is not known here.
        """
        if not self._rest and len(data) >= _PREFIX.size:
            is_compressed, size = _PREFIX.unpack_from(data)
            # By far the most frequent: one message in one frame.
            if len(data) == _PREFIX.size + size and not is_compressed and size <= self._max_bytes:
                return [data[_PREFIX.size :]]
        self._rest += data
        return self._cut()

    def _cut(self) -> list[bytes]:
        rest, start = self._rest, 0
        messages = []
        while len(rest) - start >= _PREFIX.size:
            is_compressed, size = _PREFIX.unpack_from(rest, start)
            if size > self._max_bytes:
                self._refuse(size)
            stop = start + _PREFIX.size + size
            if stop > len(rest):
                break
            message = bytes(memoryview(rest)[start + _PREFIX.size : stop])
            messages.append(self._unpacked(message) if is_compressed else message)
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
