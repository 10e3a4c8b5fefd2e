"""Headers of calls: what a request's say, and how an answer's are written.

Requests are read with HPACK's table. Answers do without: each header is written in full, so equal
headers are equal bytes, and no state has to be kept for them.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final
from urllib.parse import quote

from hpack import Decoder, HPACKError, OversizedHeaderListError

from motherlode.core.errors import InvalidInputError, MotherlodeError, RequestTooLargeError
from motherlode.server.http2.frames import Code, ConnectionFaultError

Metadata = Sequence[tuple[str, str | bytes]]

# What gRPC itself says in headers, and what belongs to HTTP/2.
_RESERVED = frozenset({"content-type", "te", "grpc-timeout", "grpc-encoding"})
# Each of them once at most, and before all others.
_PSEUDO = frozenset({":method", ":scheme", ":path", ":authority"})
# They belong to one hop of HTTP/1 (RFC 9113, section 8.2.2).
_OF_ONE_HOP = frozenset(
    {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
)
_NAME = re.compile(r":?[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Of a header beyond its characters, when its size is counted (RFC 7541, section 4.1).
_OVERHEAD_BYTES = 32
# Headers may be so many times larger than allowed and still be told so in a status.
_PATIENCE = 8
# Of a header, in what its caller is told.
_LONGEST_NAME = 100
# A client repeats itself in few ways; there may be thousands of them.
_MAX_KNOWN_BYTES = 2**15
# Of the first byte of a block that changes the size of the table (RFC 7541, section 6.3).
_TABLE_SIZE_MASK, _TABLE_SIZE = 0xE0, 0x20
_WITHOUT_INDEXING = b"\x00"


@final
@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the headers of a request say.

    Attributes:
        method: Full name of the method, `/SERVICE/METHOD`.
        metadata: The caller's own headers, keys in lower case; those in `-bin` as bytes.
        timeout_s: Time that the caller gives the call; None for no end.
        encoding: Compression of messages that are marked as compressed.
        http_status: Why this is no gRPC call, as a status of HTTP; 0 where it is one.
        refusal: Why the call cannot be taken although it is one; None where it can.
    """

    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout_s: float | None
    encoding: str
    http_status: int
    refusal: MotherlodeError | None


@final
class HeadReader:
    """Reads the header blocks of one connection, in their order.

    Args:
        max_bytes: Size of headers that methods may get. Where they have more, `refusal` says so;
            of many times as much nothing more is read.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.max_block_bytes = max_bytes * _PATIENCE
        self._decoder = Decoder(self.max_block_bytes)
        # By block: as long as the table and its size stand, equal blocks are equal headers, and do
        # nothing to it.
        self._known: dict[bytes, RequestHead] = {}
        self._num_known_bytes = 0

    def read(self, block: bytes) -> RequestHead:
        """The head of a request.

        Raises:
            ConnectionFaultError: If the block cannot be understood; later ones cannot either.
        """
        known = self._known.get(block)
        return self._read_new(block) if known is None else known

    def _read_new(self, block: bytes) -> RequestHead:
        table = self._decoder.header_table.dynamic_entries
        before = tuple(table)
        try:
            fields = [
                (bytes(one[0]), bytes(one[1])) for one in self._decoder.decode(block, raw=True)
            ]
        except OversizedHeaderListError as error:
            raise ConnectionFaultError(Code.ENHANCE_YOUR_CALM, "far too many headers") from error
        except (HPACKError, IndexError) as error:
            raise ConnectionFaultError(Code.COMPRESSION_ERROR, "headers cannot be read") from error
        head = _head_of([_as_text(*field) for field in fields], self._max_bytes)
        resizes = bool(block) and block[0] & _TABLE_SIZE_MASK == _TABLE_SIZE
        if resizes or before != tuple(table):
            self._known.clear()
            self._num_known_bytes = 0
        else:
            self._remember(block, head, len(block) + sum(len(n) + len(v) for n, v in fields))
        return head

    def _remember(self, block: bytes, head: RequestHead, num_bytes: int) -> None:
        self._num_known_bytes += num_bytes
        if self._num_known_bytes <= _MAX_KNOWN_BYTES:
            self._known[block] = head
            return
        self._known.clear()
        self._num_known_bytes = 0


def _as_text(name: bytes, value: bytes) -> tuple[str, str]:
    return name.decode("utf-8", "replace"), value.decode("utf-8", "replace")


def _head_of(fields: list[tuple[str, str]], max_bytes: int) -> RequestHead:
    named = dict(fields)
    timeout_s, refusal = None, None
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    try:
        _check_size(fields, max_bytes)
        metadata = tuple(_metadata_of(fields))
        timeout_s = _timeout_s_of(named.get("grpc-timeout"))
    except MotherlodeError as error:
        refusal = error.with_traceback(None)
    return RequestHead(
        method=named.get(":path", ""),
        metadata=metadata,
        timeout_s=timeout_s,
        encoding=named.get("grpc-encoding", "identity"),
        http_status=_http_status_of(fields, named),
        refusal=refusal,
    )


def _check_size(fields: list[tuple[str, str]], max_bytes: int) -> None:
    size = sum(len(name) + len(value) + _OVERHEAD_BYTES for name, value in fields)
    if size > max_bytes:
        raise RequestTooLargeError("metadata", expected=f"at most {max_bytes} bytes", actual=size)


def _http_status_of(fields: list[tuple[str, str]], named: dict[str, str]) -> int:
    if not _is_well_formed([name for name, _ in fields]):
        return 400
    if named.get(":method") != "POST":
        return 405
    kind = named.get("content-type", "")
    is_grpc = kind == "application/grpc" or kind.startswith(
        ("application/grpc+", "application/grpc;")
    )
    return 0 if is_grpc else 415


def _is_well_formed(names: list[str]) -> bool:
    """Whether HTTP/2 allows headers of these names (RFC 9113, section 8.3)."""
    num_pseudo = sum(name.startswith(":") for name in names)
    return (
        _PSEUDO.issuperset(names[:num_pseudo])
        and len(set(names[:num_pseudo])) == num_pseudo
        and _OF_ONE_HOP.isdisjoint(names)
        and all(map(_NAME.fullmatch, names))
    )


def _metadata_of(fields: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str | bytes]]:
    for name, value in fields:
        if name.startswith(":") or name in _RESERVED:
            continue
        if name.endswith("-bin"):
            # Several values may have been joined into one.
            yield from ((name, _decode_binary(name, part.strip())) for part in value.split(","))
        elif _VALUE.fullmatch(value):
            yield name, value
        else:
            raise _bad_metadata(name, "printable characters of ASCII", value)


def _decode_binary(name: str, value: str) -> bytes:
    try:
        return b64decode(value + "=" * (-len(value) % 4), validate=True)
    except ValueError as error:
        raise _bad_metadata(name, "base64", value) from error


def _bad_metadata(name: str, expected: str, value: str) -> InvalidInputError:
    field = f"metadata {name[:_LONGEST_NAME]}"
    return InvalidInputError(field, expected=expected, actual=value)


def _timeout_s_of(text: str | None) -> float | None:
    if text is None:
        return None
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise InvalidInputError("grpc-timeout", expected="digits and a unit", actual=text)
    return int(match[1]) * _UNIT_S[match[2]]


def block_of(fields: Metadata) -> bytes:
    """The header block of an answer, the same for the same headers."""
    return b"".join(
        _WITHOUT_INDEXING + _string(name.encode()) + _string(_value_bytes(value))
        for name, value in fields
    )


def percent_encoded(text: str) -> str:
    """A text as `grpc-message` has it."""
    return quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~", errors="replace")


def _value_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else b64encode(value).rstrip(b"=")


def _string(octets: bytes) -> bytes:
    """Length and octets (RFC 7541, section 5.2)."""
    size = len(octets)
    if size < 127:
        return bytes((size,)) + octets
    size -= 127
    prefix = bytearray((127,))
    while size >= 128:
        prefix.append(size % 128 + 128)
        size //= 128
    prefix.append(size)
    return bytes(prefix) + octets
