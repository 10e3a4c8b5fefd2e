"""Messages of a stream, however its bytes are cut, and compressed ones."""

from __future__ import annotations

import asyncio
import gzip
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motherlode.core.errors import InvalidInputError, RequestTooLargeError
from motherlode.server.http2.messages import MessageReader, Packed, prefixed
from motherlode.server.http2.requests import Requests
from motherlode.server.status import UnimplementedError

PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def packed(content: bytes) -> bytes:
    return b"\x01" + struct.pack(">L", len(content)) + content


def read_all(reader: MessageReader, data: bytes) -> list[bytes]:
    return [reader.unpack(message) for message in reader.feed(data)]


@given(
    messages=st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    encoding=st.sampled_from(sorted(PACKERS)),
)
def test_messages_are_the_same_however_their_bytes_are_cut(
    messages: list[tuple[bytes, bool]], cuts: list[int], encoding: str
) -> None:
    data = b"".join(
        packed(PACKERS[encoding](one)) if is_packed else prefixed(one)
        for one, is_packed in messages
    )
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader, found = MessageReader(encoding, 100), []
    for start, stop in pairwise(places):
        found += read_all(reader, data[start:stop])
    reader.finish()
    assert found == [one for one, _ in messages]


@given(st.lists(st.binary(max_size=30), max_size=8), st.sampled_from(["gzip", "identity", "br"]))
def test_any_bytes_are_messages_or_an_error_that_has_a_status(
    pieces: list[bytes], encoding: str
) -> None:
    reader = MessageReader(encoding, 1000)
    try:
        for piece in pieces:
            assert all(len(message) <= 1000 for message in read_all(reader, piece))
        reader.finish()
    except (InvalidInputError, UnimplementedError):
        return


@pytest.mark.parametrize("size", [99, 100])
@pytest.mark.parametrize("encoding", sorted(PACKERS))
def test_a_message_may_be_as_large_as_the_limit_and_no_larger(encoding: str, size: int) -> None:
    reader = MessageReader(encoding, 99)
    of_that_size = packed(PACKERS[encoding](bytes(size)))
    if size == 99:
        assert read_all(reader, of_that_size) == [bytes(99)]
        assert read_all(reader, prefixed(bytes(99))) == [bytes(99)]
        return
    with pytest.raises(RequestTooLargeError):
        read_all(reader, of_that_size)
    with pytest.raises(RequestTooLargeError):
        MessageReader(encoding, 99).feed(prefixed(bytes(100)))


def test_a_message_too_large_is_refused_before_it_has_come() -> None:
    with pytest.raises(RequestTooLargeError):
        MessageReader("identity", 99).feed(b"\x00\xff\xff\xff\xff")


@pytest.mark.parametrize("encoding", sorted(PACKERS))
def test_what_was_cut_off_or_is_not_compressed_is_refused(encoding: str) -> None:
    whole = PACKERS[encoding](b"some words")
    for content in (whole[:-1], b"", b"no such thing"):
        with pytest.raises(InvalidInputError, match=f"compressed with {encoding}"):
            read_all(MessageReader(encoding, 99), packed(content))


def test_a_compression_that_is_not_known_is_not_implemented() -> None:
    with pytest.raises(UnimplementedError, match="not br"):
        read_all(MessageReader("br", 99), packed(b"x"))
    # A message that is not compressed may have any.
    assert read_all(MessageReader("br", 99), prefixed(b"x")) == [b"x"]


def test_half_a_message_at_the_end_is_an_error() -> None:
    reader = MessageReader("identity", 99)
    assert reader.feed(prefixed(b"one") + prefixed(b"two")[:4]) == [b"one"]
    with pytest.raises(InvalidInputError, match="4 bytes of one more"):
        reader.finish()


def test_what_nobody_has_read_is_still_as_small_as_it_came() -> None:
    bomb = gzip.compress(bytes(2**20))
    waiting = MessageReader("gzip", 2**20).feed(packed(bomb) * 50)
    assert waiting == [Packed(bomb)] * 50


def test_a_callers_room_comes_back_when_all_that_came_was_read() -> None:
    async def granted() -> list[int]:
        rooms: list[int] = []
        reader = MessageReader("gzip", 99)
        requests = Requests(rooms.append, reader.unpack)
        requests.add(reader.feed(prefixed(b"a") + packed(gzip.compress(b"b"))), 40, is_last=False)
        assert await anext(requests) == b"a"
        assert rooms == []
        assert await anext(requests) == b"b"
        assert rooms == [40]
        # Half a message has to be granted, or the other half could not come.
        requests.add([], 7, is_last=False)
        waiting = asyncio.create_task(anext(requests))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        requests.add([b"c"], 3, is_last=True)
        assert await waiting == b"c"
        with pytest.raises(StopAsyncIteration):
            await anext(requests)
        return rooms

    assert asyncio.run(granted()) == [40, 7, 3]
