"""Frames as bytes, and how bytes are cut into them."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motherlode.server.http2 import frames
from motherlode.server.http2.frame_reader import MAX_FRAME_BYTES, FrameReader, NotHttp2Error
from motherlode.server.http2.frames import Code, ConnectionFaultError, Kind, frame
from tests.support.http2 import cut

START = frames.PREFACE + frames.settings({})
ANY_KINDS = [kind for kind in Kind if kind not in {Kind.HEADERS, Kind.CONTINUATION}]


class Heard:
    """Reads and keeps what it was given."""

    def __init__(self, max_block_bytes: int = 1000) -> None:
        self.all: list[tuple[Any, ...]] = []
        handlers = {kind: self._on(kind) for kind in Kind if kind is not Kind.CONTINUATION}
        self.reader = FrameReader(handlers, self._on("other"), max_block_bytes)

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        before = len(self.all)
        self.reader.feed(data)
        return self.all[before:]

    def _on(self, kind: Any) -> Any:
        return lambda flags, stream_id, payload: self.all.append((kind, flags, stream_id, payload))


def fault_of(data: bytes, *, start: bytes = START) -> Code:
    with pytest.raises(ConnectionFaultError) as caught:
        Heard().feed(start + data)
    return caught.value.code


@given(
    sent=st.lists(
        st.tuples(
            st.sampled_from(ANY_KINDS),
            st.integers(0, 255),
            st.integers(0, 2**31 - 1),
            st.binary(max_size=60),
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 600), max_size=10),
)
def test_frames_are_the_same_however_their_bytes_come(
    sent: list[tuple[Kind, int, int, bytes]], cuts: list[int]
) -> None:
    data = START + b"".join(frame(*one) for one in sent)
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    heard = Heard()
    for start, stop in pairwise(places):
        heard.feed(data[start:stop])
    assert heard.all[1:] == sent
    assert [tuple(one) for one in cut(data[len(frames.PREFACE) :])][1:] == sent


def test_kinds_that_nobody_knows_are_passed_over() -> None:
    unknown = b"\x00\x00\x02\xee\x07\x00\x00\x00\x09hi"
    assert Heard().feed(START + unknown)[1:] == [("other", 7, 9, b"hi")]


def test_the_reserved_bit_of_a_stream_is_not_part_of_its_number() -> None:
    assert Heard().feed(START + b"\x00\x00\x00\x00\x00\x80\x00\x00\x05")[1:] == [
        (Kind.DATA, 0, 5, b"")
    ]


@pytest.mark.parametrize("size", [MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1])
def test_a_frame_may_be_as_large_as_was_said(size: int) -> None:
    data = frame(Kind.DATA, 0, 1, bytes(size))
    if size == MAX_FRAME_BYTES:
        assert len(Heard().feed(START + data)) == 2
    else:
        # At once, and not when it has come.
        assert fault_of(data[: frames.HEADER_BYTES]) is Code.FRAME_SIZE_ERROR


@pytest.mark.parametrize("start", [b"G", b"PRI * HTTP/1.1", b"\x16\x03\x01"])
def test_what_does_not_start_as_http2_is_not(start: bytes) -> None:
    with pytest.raises(NotHttp2Error) as caught:
        Heard().feed(start)
    assert caught.value.start == start


@pytest.mark.parametrize(
    "first",
    [frame(Kind.PING, 0, 0, bytes(8)), frame(Kind.SETTINGS, frames.ACK, 0)],
    ids=["ping", "an acknowledgement"],
)
def test_settings_come_first(first: bytes) -> None:
    assert fault_of(first, start=frames.PREFACE) is Code.PROTOCOL_ERROR


@given(pieces=st.lists(st.binary(max_size=30), min_size=1, max_size=6))
def test_a_block_in_pieces_is_one(pieces: list[bytes]) -> None:
    kinds = [Kind.HEADERS, *[Kind.CONTINUATION] * (len(pieces) - 1)]
    flags = [frames.END_STREAM, *[0] * (len(pieces) - 1)]
    flags[-1] |= frames.END_HEADERS
    data = b"".join(
        frame(kind, flag, 3, piece) for kind, flag, piece in zip(kinds, flags, pieces, strict=True)
    )
    ((kind, flag, stream_id, block),) = Heard().feed(START + data)[1:]
    assert (kind, stream_id, block) == (Kind.HEADERS, 3, b"".join(pieces))
    assert flag & frames.END_STREAM


def test_padding_and_priority_of_a_block_are_left_out() -> None:
    flags = frames.PADDED | frames.PRIORITIZED | frames.END_HEADERS
    data = frame(Kind.HEADERS, flags, 1, b"\x03" + b"prior" + b"block" + b"pad")
    assert Heard().feed(START + data)[1:] == [(Kind.HEADERS, flags, 1, b"block")]


BLOCK_BEGUN = frame(Kind.HEADERS, 0, 1, b"a")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Kind.CONTINUATION, frames.END_HEADERS, 1, b"a"), Code.PROTOCOL_ERROR),
        (BLOCK_BEGUN + frame(Kind.CONTINUATION, 0, 3, b"a"), Code.PROTOCOL_ERROR),
        (BLOCK_BEGUN + frame(Kind.PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
        (BLOCK_BEGUN + b"\x00\x00\x00\xee\x00\x00\x00\x00\x01", Code.PROTOCOL_ERROR),
        (BLOCK_BEGUN + frame(Kind.CONTINUATION, 0, 1) * 65, Code.ENHANCE_YOUR_CALM),
        (BLOCK_BEGUN + frame(Kind.CONTINUATION, 0, 1, bytes(999)) * 2, Code.ENHANCE_YOUR_CALM),
        (frame(Kind.HEADERS, frames.PADDED, 1, b"\x01"), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, frames.PADDED, 1), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, frames.PRIORITIZED, 1, b"four"), Code.FRAME_SIZE_ERROR),
    ],
    ids=[
        "of nothing",
        "of another stream",
        "a ping between",
        "something unknown between",
        "too many",
        "too long",
        "more padding than frame",
        "no length of padding",
        "no priority",
    ],
)
def test_a_block_that_breaks_the_rules_ends_the_connection(data: bytes, code: Code) -> None:
    assert fault_of(data) is code


@given(st.binary(max_size=200))
def test_a_long_block_is_cut_so_that_every_peer_takes_it(start: bytes) -> None:
    block = start + bytes(3 * frames.INITIAL_FRAME_BYTES)
    heard = Heard(2**20)
    ((_, flags, stream_id, whole),) = heard.feed(START + frames.head(7, block, is_last=True))[1:]
    assert (stream_id, whole) == (7, block)
    assert flags & frames.END_STREAM
    sizes = [len(one.payload) for one in cut(frames.head(7, block, is_last=True))]
    assert max(sizes) == frames.INITIAL_FRAME_BYTES


@given(st.binary(max_size=300))
def test_any_bytes_after_the_start_are_frames_or_a_fault(data: bytes) -> None:
    with suppress(ConnectionFaultError):
        Heard().feed(START + data)
