"""Header blocks: what those of requests say, and how those of answers are written."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from motherlode.core.errors import InvalidInputError, RequestTooLargeError
from motherlode.server.http2.frames import Code, ConnectionFaultError
from motherlode.server.http2.headers import HeadReader, RequestHead, block_of, percent_encoded

CALL = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/test/Echo",
    "content-type": "application/grpc",
}
NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True).filter(
    lambda name: not name.endswith("-bin") and name not in {"te", "connection", "upgrade"}
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


def literal(*fields: tuple[bytes, bytes]) -> bytes:
    """Headers that leave the table as it is."""
    return b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields
    )


def literals(**more: bytes) -> bytes:
    fields = [(name.encode(), value.encode()) for name, value in CALL.items()]
    return literal(
        *fields, *((name.replace("_", "-").encode(), value) for name, value in more.items())
    )


def read(more: dict[str, str], max_bytes: int = 16_384) -> RequestHead:
    return HeadReader(max_bytes).read(Encoder().encode({**CALL, **more}.items()))


@given(calls=st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=8))
def test_headers_are_what_an_encoder_made_them_of(calls: list[dict[str, str]]) -> None:
    reader, encoder = HeadReader(16_384), Encoder()
    for metadata in calls * 2:
        head = reader.read(encoder.encode({**CALL, **metadata}.items()))
        assert head.http_status == 0
        assert head.refusal is None
        assert head.metadata == tuple(metadata.items())


@given(
    sizes=st.lists(st.sampled_from([0, 60, 100, 300, 4096]), max_size=12),
    words=st.lists(st.sampled_from(["a", "b" * 30, "c" * 200]), min_size=12, max_size=12),
)
def test_a_table_that_changes_its_size_changes_it_here_too(
    sizes: list[int], words: list[str]
) -> None:
    reader, encoder = HeadReader(16_384), Encoder()
    for size, word in zip(sizes, words, strict=False):
        encoder.header_table_size = size
        for _ in range(2):
            head = reader.read(encoder.encode({**CALL, "x-word": word}.items()))
            assert head.metadata == (("x-word", word),)


def test_a_block_for_which_there_was_no_room_is_read_anew_when_there_is() -> None:
    """It left an empty table empty, and so does a block that makes room and is too large itself."""
    reader = HeadReader(16_384)
    entry, too_large = b"\x40\x03x-a\x01b", b"\x40\x03x-b\x1e" + b"b" * 30
    reader.read(b"\x20" + literals())
    reader.read(literals() + entry)
    reader.read(b"\x3f\x1d" + literals() + too_large)
    reader.read(literals() + entry)
    assert reader.read(literals() + b"\xbe").metadata == (("x-a", "b"),)


def test_a_block_that_resizes_the_table_does_so_each_time() -> None:
    reader, oracle = HeadReader(16_384), Decoder()
    to_nothing, to_all, entry = b"\x20", b"\x3f\xe1\x1f", b"\x40\x01a\x01b"
    for block in (to_nothing, to_all, to_nothing, entry, to_all + entry, b"\xbe"):
        oracle.decode(block)
        reader.read(block)
    with pytest.raises(ConnectionFaultError):
        reader.read(b"\xbf")


def test_a_table_of_as_many_entries_that_are_others_is_another_table() -> None:
    """A new entry may lie where one lay that it has driven out."""
    reader = HeadReader(16_384)
    # Of entries of 38 bytes there is room for one.
    reader.read(b"\x3f\x09" + literals())
    for i in range(200):
        first, second = f"{i:03}".encode(), f"{i + 1:03}".encode()
        reader.read(b"\x40\x03x-a\x03" + first)
        assert dict(reader.read(literals() + b"\xbe").metadata) == {"x-a": first.decode()}
        # Two that come one after the other: the second takes the place of the first.
        reader.read(b"\x40\x03x-b\x03" + first + b"\x40\x03x-a\x03" + second)
        assert dict(reader.read(literals() + b"\xbe").metadata) == {"x-a": second.decode()}


def test_what_is_kept_of_earlier_blocks_is_little() -> None:
    reader = HeadReader(16_384)
    for i in range(200):
        reader.read(literals(x=b"%100d" % i, y=b"y" * 120))
    kept = vars(reader)["_known"]
    assert kept
    assert sum(map(len, kept)) < 50_000


def test_a_request_that_is_no_call_gets_a_status_of_http() -> None:
    assert read({":method": "GET"}).http_status == 405
    assert read({"content-type": "text/html"}).http_status == 415
    assert read({"content-type": "application/grpc-web"}).http_status == 415
    assert read({"content-type": "application/grpc+proto"}).http_status == 0


@pytest.mark.parametrize(
    "fields",
    [
        [*CALL.items(), (":path", "/test/Other")],
        [("x-a", "b"), *CALL.items()],
        [*CALL.items(), (":status", "200")],
        [*CALL.items(), ("connection", "close")],
        [*CALL.items(), ("X-Upper", "case")],
        [*CALL.items(), ("a space", "x")],
        [*CALL.items(), ("", "x")],
    ],
    ids=["two paths", "late pseudo", "unknown pseudo", "one hop", "upper case", "space", "no name"],
)
def test_headers_that_http2_forbids_are_a_bad_request(fields: list[tuple[str, str]]) -> None:
    assert HeadReader(16_384).read(Encoder().encode(fields)).http_status == 400


@pytest.mark.parametrize("value", ["!!!!", "a", "caf\u00e9", "YQ==YQ=="])
def test_binary_metadata_that_is_none_is_refused(value: str) -> None:
    refusal = read({"x-odd-bin": value}).refusal
    assert isinstance(refusal, InvalidInputError)
    assert refusal.field == "metadata x-odd-bin"


@given(values=st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_binary_metadata_come_as_bytes_however_they_are_joined(values: list[bytes]) -> None:
    encoded = [block_of([("x", one)])[4:].decode() for one in values]
    for joint in (",", ", "):
        head = read({"x-some-bin": joint.join(encoded)})
        assert [value for name, value in head.metadata if name == "x-some-bin"] == values


@pytest.mark.parametrize("value", [b"caf\xc3\xa9", b"\xff\xfe", b"a\nb", b"\x00"])
def test_values_of_no_printable_characters_refuse_one_call_and_no_connection(value: bytes) -> None:
    reader = HeadReader(16_384)
    refusal = reader.read(literals(x_odd=value)).refusal
    assert isinstance(refusal, InvalidInputError)
    assert refusal.field == "metadata x-odd"
    assert reader.read(literals(x_fine=b"fine")).metadata == (("x-fine", "fine"),)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1H", 3600.0), ("2M", 120.0), ("3S", 3.0), ("4m", 4e-3), ("5u", 5e-6)]
)
def test_a_timeout_is_digits_and_a_unit(text: str, seconds: float) -> None:
    assert read({"grpc-timeout": text}).timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "S", "1", "1s", "-1S", "123456789S", "1.5S", "1S\n", "\u0661S"]
)
def test_any_other_timeout_is_refused(text: str) -> None:
    assert isinstance(read({"grpc-timeout": text}).refusal, InvalidInputError)


def test_more_metadata_than_allowed_refuse_the_call_and_far_more_the_connection() -> None:
    refusal = read({"x-long": "a" * 3000}, max_bytes=2048).refusal
    assert isinstance(refusal, RequestTooLargeError)
    with pytest.raises(ConnectionFaultError) as caught:
        read({"x-long": "a" * 30_000}, max_bytes=2048)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


def test_a_small_block_that_stands_for_many_headers_is_too_many() -> None:
    reader = HeadReader(2048)
    reader.read(b"\x40\x01a\x7f\x81\x07" + b"b" * 1024)
    with pytest.raises(ConnectionFaultError) as caught:
        reader.read(b"\xbe" * 1000)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_are_headers_or_break_the_connection(blocks: list[bytes]) -> None:
    reader = HeadReader(2048)
    with suppress(ConnectionFaultError):
        for block in blocks:
            reader.read(block)


@given(fields=st.lists(st.tuples(NAMES, VALUES | st.text("x", min_size=100, max_size=20_000))))
def test_a_decoder_reads_what_is_written(fields: list[Any]) -> None:
    decoder = Decoder(2**30)
    assert [tuple(one) for one in decoder.decode(block_of(fields))] == fields


@given(st.text())
def test_a_message_is_printable_and_can_be_read_again(text: str) -> None:
    encoded = percent_encoded(text)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert unquote(encoded) == text
