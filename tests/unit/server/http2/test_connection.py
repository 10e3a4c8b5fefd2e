"""One connection, frame by frame: what a caller may do, and what it is answered."""

from __future__ import annotations

import struct

import grpc
import pytest

from motherlode.server.http2 import frames
from motherlode.server.http2.frames import Code, Kind, Setting
from motherlode.server.http2.messages import prefixed
from motherlode.server.http2.stream import STREAM_WINDOW
from tests.support.http2 import MIB, Dialogue, answers, codes
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

HELLO = prefixed(b"hello")
BOTH = frames.END_HEADERS | frames.END_STREAM


async def test_the_server_says_its_settings_first() -> None:
    dialogue = Dialogue(greets=False, max_calls=7)
    settings, window = dialogue.heard()
    assert settings.kind is Kind.SETTINGS
    assert dict(struct.iter_unpack(">HL", settings.payload)) == {
        Setting.MAX_CONCURRENT_STREAMS: 7,
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        Setting.MAX_FRAME_SIZE: 65_536,
        Setting.MAX_HEADER_LIST_SIZE: 16_384,
    }
    assert window.kind is Kind.WINDOW_UPDATE
    dialogue.say(frames.PREFACE + frames.settings({}))
    assert [(one.kind, one.flags) for one in dialogue.heard()] == [(Kind.SETTINGS, frames.ACK)]


async def test_a_call_is_answered_by_headers_message_and_trailers() -> None:
    dialogue = Dialogue()
    dialogue.call(1)
    head, message, trailers = await dialogue.settle()
    assert dialogue.headers(head)[":status"] == "200"
    assert message.payload == HELLO
    assert (trailers.kind, trailers.flags) == (Kind.HEADERS, BOTH)
    assert codes(dialogue.headers(trailers)) is grpc.StatusCode.OK


async def test_padding_is_no_part_of_the_message() -> None:
    dialogue = Dialogue()
    dialogue.open(1)
    for i, byte in enumerate(HELLO):
        dialogue.send(Kind.DATA, frames.PADDED, 1, bytes([i, byte]) + b"x" * i)
    assert answers(await dialogue.settle(), 1) == HELLO


async def test_room_that_padding_took_comes_back() -> None:
    dialogue = Dialogue()
    dialogue.open(1, "/test/EchoEach")
    granted = {0: 0, 1: 0}
    for i in range(40):
        for _ in range(256):
            dialogue.send(Kind.DATA, frames.PADDED, 1, b"\xfe" + bytes(255))
        # A message every now and then, or it would be a flood.
        dialogue.call(3 + 2 * i)
        for one in await dialogue.settle():
            if one.kind is Kind.WINDOW_UPDATE:
                granted[one.stream_id] += struct.unpack(">L", one.payload)[0]
    assert not dialogue.transport.is_closed
    assert granted[1] > 40 * 256 * 256 - STREAM_WINDOW


async def test_a_request_that_breaks_the_bound_of_its_stream_ends_the_connection() -> None:
    dialogue = Dialogue(max_message_bytes=16 * MIB)
    # Nobody reads it: the method waits for the end of the one before.
    dialogue.open(1, "/test/EchoEach")
    dialogue.connection.pause_writing()
    for _ in range(STREAM_WINDOW // 2**15 + 2):
        dialogue.data(1, prefixed(bytes(2**15 - 5)))
    assert dialogue.fault() is Code.FLOW_CONTROL_ERROR


async def test_a_large_request_that_is_read_has_all_the_room_that_it_needs() -> None:
    dialogue = Dialogue(max_message_bytes=4 * MIB)
    dialogue.open(1)
    request = prefixed(bytes(3 * MIB))
    for start in range(0, len(request), 2**15):
        dialogue.data(1, request[start : start + 2**15])
    dialogue.widen(0, 4 * MIB)
    dialogue.widen(1, 4 * MIB)
    assert answers(await dialogue.settle(), 1) == request


async def test_a_large_answer_keeps_to_the_windows_and_frames_of_its_caller() -> None:
    dialogue = Dialogue()
    dialogue.send(Kind.SETTINGS, 0, 0, struct.pack(">HL", Setting.INITIAL_WINDOW_SIZE, 1000))
    dialogue.call(1, b"100000", "/test/Repeat")
    heard = await dialogue.settle()
    assert len(answers(heard, 1)) == 1000
    whole = answers(heard, 1)
    # A setting reaches back to streams that stand already, and may make their windows negative.
    dialogue.send(Kind.SETTINGS, 0, 0, struct.pack(">HL", Setting.INITIAL_WINDOW_SIZE, 10))
    dialogue.widen(1, 990)
    assert answers(dialogue.heard(), 1) == b""
    dialogue.widen(1, 1)
    whole += answers(dialogue.heard(), 1)
    assert len(whole) == 1001
    dialogue.send(Kind.SETTINGS, 0, 0, struct.pack(">HL", Setting.INITIAL_WINDOW_SIZE, 2**31 - 1))
    heard = dialogue.heard()
    assert max(len(one.payload) for one in heard) == frames.INITIAL_FRAME_BYTES
    whole += answers(heard, 1)
    assert len(whole) == frames.INITIAL_WINDOW
    dialogue.widen(0, 100_000)
    heard = dialogue.heard()
    whole += answers(heard, 1)
    assert whole == prefixed(bytes(i % 251 for i in range(1000)) * 100)
    assert codes(dialogue.headers(heard[-1])) is grpc.StatusCode.OK


async def test_streams_take_turns_where_there_is_room_for_few() -> None:
    dialogue = Dialogue()
    for stream_id in (1, 3, 5):
        dialogue.call(stream_id, b"65000", "/test/Repeat")
    await dialogue.settle()
    dialogue.widen(0, 3 * frames.INITIAL_FRAME_BYTES)
    # The first one had its share before.
    assert [one.stream_id for one in await dialogue.settle()] == [3, 5, 3]


async def test_a_caller_who_ends_his_request_late_gets_his_answer() -> None:
    dialogue = Dialogue()
    dialogue.open(1, "/test/Repeat")
    dialogue.data(1, prefixed(b"100000"))
    whole = answers(await dialogue.settle(), 1)
    assert len(whole) == frames.INITIAL_WINDOW
    dialogue.data(1, b"", is_last=True)
    dialogue.widen(0, MIB)
    dialogue.widen(1, MIB)
    heard = await dialogue.settle()
    assert len(whole + answers(heard, 1)) == 100_005
    assert codes(dialogue.headers(heard[-1])) is grpc.StatusCode.OK


async def test_a_second_message_of_one_call_is_not_a_second_call() -> None:
    dialogue = Dialogue()
    dialogue.open(1, "/test/Repeat")
    dialogue.data(1, prefixed(b"100000"))
    await dialogue.settle()
    dialogue.data(1, prefixed(b"100000"))
    await dialogue.settle()
    assert dialogue.methods.num_entered == 1


@pytest.mark.parametrize("late", ["data", "trailers"])
async def test_a_request_that_goes_on_after_its_end_ends_the_connection(late: str) -> None:
    dialogue = Dialogue()
    dialogue.call(1, path="/test/Wait")
    if late == "data":
        dialogue.data(1, HELLO)
    else:
        dialogue.send(Kind.HEADERS, BOTH, 1, dialogue.block())
    assert dialogue.fault() is Code.STREAM_CLOSED


async def test_a_request_may_end_with_trailers() -> None:
    dialogue = Dialogue()
    dialogue.open(1, "/test/EchoEach")
    dialogue.data(1, HELLO)
    dialogue.send(Kind.HEADERS, BOTH, 1, dialogue.block())
    heard = await dialogue.settle()
    assert answers(heard, 1) == HELLO
    assert codes(dialogue.headers(heard[-1])) is grpc.StatusCode.OK


@pytest.mark.parametrize("path", ["/test/Echo", "/test/EchoEach"])
async def test_half_a_message_is_an_invalid_argument(path: str) -> None:
    dialogue = Dialogue()
    dialogue.open(1, path)
    dialogue.data(1, HELLO[:7], is_last=True)
    (end,) = [one for one in await dialogue.settle() if one.flags & frames.END_STREAM]
    assert codes(dialogue.headers(end)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_is_unread_only_where_its_method_was_not_given_it() -> None:
    dialogue, unread = Dialogue(), list[Exception]()
    dialogue.methods.note_unread("/test/Wait", unread.append)
    dialogue.open(1, "/test/Wait")
    dialogue.data(1, HELLO)
    await dialogue.settle()
    dialogue.data(1, HELLO[:-1], is_last=True)
    dialogue.open(3, "/test/Wait")
    dialogue.data(3, HELLO[:-2], is_last=True)
    assert dialogue.methods.num_entered == 1
    assert len(unread) == 1
    assert "8 bytes of one more" in str(unread[0])


async def test_who_answers_before_the_end_of_a_request_does_not_wait_for_it() -> None:
    dialogue = Dialogue()
    dialogue.open(1)
    dialogue.data(1, HELLO)
    *_, reset = await dialogue.settle()
    assert (reset.kind, reset.payload) == (Kind.RST_STREAM, struct.pack(">L", Code.NO_ERROR))
    # What was on its way does no harm.
    dialogue.data(1, HELLO, is_last=True)
    dialogue.reset(1)
    dialogue.widen(1, 5)
    dialogue.send(Kind.HEADERS, BOTH, 1, dialogue.block())
    assert dialogue.fault() is None


async def test_a_reset_is_not_answered_by_another() -> None:
    dialogue = Dialogue()
    dialogue.open(1, "/test/EchoEach")
    await dialogue.settle()
    dialogue.reset(1)
    assert await dialogue.settle() == []
    assert dialogue.connection.num_calls == dialogue.connection.num_running == 0


@pytest.mark.parametrize("is_paused", [False, True], ids=["who reads", "who does not read"])
async def test_a_deadline_ends_a_call_with_its_own_status_for_a_caller(is_paused: bool) -> None:
    dialogue = Dialogue()
    dialogue.open(1, "/test/Wait", grpc_timeout="1m", x_request_id="order-12")
    dialogue.data(1, HELLO, is_last=True)
    if is_paused:
        dialogue.connection.pause_writing()
    await until(lambda: not dialogue.connection.num_running + dialogue.connection.num_calls)
    (end,) = await dialogue.settle()
    told = dialogue.headers(end)
    assert told[":status"] == "200"
    assert codes(told) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert told["x-request-id"] == "order-12"


async def test_an_answer_that_nobody_takes_ends_with_the_deadline() -> None:
    dialogue = Dialogue()
    dialogue.open(1, "/test/Repeat", grpc_timeout="20m")
    dialogue.data(1, prefixed(b"100000"), is_last=True)
    heard = []
    while dialogue.connection.num_calls:
        heard += await dialogue.settle()
    assert codes(dialogue.headers(heard[-1])) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert dialogue.connection.outflow.num_unsent == 0
    assert dialogue.connection.counts.num_failed == 1


async def test_more_calls_than_there_may_be_are_sent_back_unread() -> None:
    dialogue = Dialogue(max_calls=2)
    for stream_id in (1, 3, 5):
        dialogue.call(stream_id, path="/test/Wait")
    (refused,) = await dialogue.settle()
    assert (refused.stream_id, refused.payload) == (5, struct.pack(">L", Code.REFUSED_STREAM))
    dialogue.methods.release.set()
    await dialogue.settle()
    dialogue.call(7)
    assert answers(await dialogue.settle(), 7) == HELLO


async def test_what_is_no_call_gets_a_status_of_http_and_is_over() -> None:
    dialogue = Dialogue()
    dialogue.open(1, content_type="text/html")
    head, reset = dialogue.heard()
    assert dialogue.headers(head) == {":status": "415"}
    assert reset.payload == struct.pack(">L", Code.NO_ERROR)
    dialogue.data(1, b"some text", is_last=True)
    dialogue.call(3)
    assert answers(await dialogue.settle(), 3) == HELLO
    assert dialogue.connection.counts.num_failed == 1


async def test_metadata_that_cannot_be_read_end_one_call_with_trailers_that_fit() -> None:
    dialogue = Dialogue()
    dialogue.open(1, **{"x-" + "long" * 3000 + "-bin": "caf\u00e9"})
    dialogue.data(1, HELLO, is_last=True)
    heard = await dialogue.settle()
    assert codes(dialogue.headers(heard[0])) is grpc.StatusCode.INVALID_ARGUMENT
    assert max(len(one.payload) for one in heard) < 8192
    dialogue.call(3)
    assert answers(await dialogue.settle(), 3) == HELLO


async def test_a_call_that_fails_says_internal_and_the_next_one_is_answered() -> None:
    dialogue = Dialogue()
    dialogue.call(1, path="/test/Fail")
    (end,) = await dialogue.settle()
    assert codes(dialogue.headers(end)) is grpc.StatusCode.INTERNAL
    dialogue.call(3)
    assert answers(await dialogue.settle(), 3) == HELLO


@pytest.mark.parametrize(
    ("kind", "flags", "stream_id", "payload", "code"),
    [
        (Kind.DATA, 0, 0, b"", Code.PROTOCOL_ERROR),
        (Kind.DATA, 0, 1, b"", Code.PROTOCOL_ERROR),
        (Kind.DATA, 0, 2, b"", Code.PROTOCOL_ERROR),
        (Kind.HEADERS, BOTH, 0, b"", Code.PROTOCOL_ERROR),
        (Kind.HEADERS, BOTH, 2, b"", Code.PROTOCOL_ERROR),
        (Kind.HEADERS, BOTH, 1, b"\xff\xff\xff\xff\xff\xff", Code.COMPRESSION_ERROR),
        (Kind.HEADERS, BOTH, 1, b"\x80", Code.COMPRESSION_ERROR),
        (Kind.RST_STREAM, 0, 0, bytes(4), Code.PROTOCOL_ERROR),
        (Kind.RST_STREAM, 0, 1, bytes(4), Code.PROTOCOL_ERROR),
        (Kind.RST_STREAM, 0, 1, bytes(3), Code.FRAME_SIZE_ERROR),
        (Kind.SETTINGS, 0, 1, b"", Code.PROTOCOL_ERROR),
        (Kind.SETTINGS, 0, 0, bytes(5), Code.FRAME_SIZE_ERROR),
        (Kind.SETTINGS, frames.ACK, 0, bytes(6), Code.FRAME_SIZE_ERROR),
        (Kind.SETTINGS, 0, 0, struct.pack(">HL", 4, 2**31), Code.FLOW_CONTROL_ERROR),
        (Kind.SETTINGS, 0, 0, struct.pack(">HL", 5, 16_383), Code.PROTOCOL_ERROR),
        (Kind.SETTINGS, 0, 0, struct.pack(">HL", 5, 2**24), Code.PROTOCOL_ERROR),
        (Kind.PUSH_PROMISE, 0, 1, bytes(4), Code.PROTOCOL_ERROR),
        (Kind.PING, 0, 0, bytes(7), Code.FRAME_SIZE_ERROR),
        (Kind.PING, 0, 1, bytes(8), Code.PROTOCOL_ERROR),
        (Kind.WINDOW_UPDATE, 0, 0, bytes(4), Code.PROTOCOL_ERROR),
        (Kind.WINDOW_UPDATE, 0, 0, bytes(3), Code.FRAME_SIZE_ERROR),
        (Kind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff", Code.FLOW_CONTROL_ERROR),
        (Kind.WINDOW_UPDATE, 0, 1, b"\x00\x00\x00\x01", Code.PROTOCOL_ERROR),
    ],
)
async def test_a_frame_that_breaks_the_rules_ends_the_connection(
    kind: Kind, flags: int, stream_id: int, payload: bytes, code: Code
) -> None:
    dialogue = Dialogue()
    dialogue.send(kind, flags, stream_id, payload)
    assert dialogue.fault() is code


async def test_windows_of_one_stream_have_a_largest_size_too() -> None:
    for kind, stream_id, payload in (
        (Kind.WINDOW_UPDATE, 1, b"\x7f\xff\xff\xff"),
        (Kind.SETTINGS, 0, struct.pack(">HL", Setting.INITIAL_WINDOW_SIZE, 2**31 - 1)),
    ):
        dialogue = Dialogue()
        dialogue.call(1, path="/test/Wait")
        dialogue.widen(1, 1)
        dialogue.send(kind, 0, stream_id, payload)
        assert dialogue.fault() is Code.FLOW_CONTROL_ERROR


async def test_frames_that_say_nothing_to_a_server_are_borne() -> None:
    dialogue = Dialogue()
    dialogue.send(Kind.PRIORITY, 0, 9, bytes(5))
    dialogue.send(Kind.GOAWAY, 0, 0, bytes(8))
    dialogue.say(b"\x00\x00\x01\xee\x00\x00\x00\x00\x05x")
    dialogue.send(Kind.PING, frames.ACK, 0, b"no ping!")
    dialogue.send(Kind.SETTINGS, 0, 0, struct.pack(">HL", 0xABC, 5))
    dialogue.call(1)
    assert answers(await dialogue.settle(), 1) == HELLO


async def test_a_ping_is_answered_with_what_it_says() -> None:
    dialogue = Dialogue()
    dialogue.send(Kind.PING, 0, 0, b"12345678")
    ((kind, flags, _, payload),) = dialogue.heard()
    assert (kind, flags, payload) == (Kind.PING, frames.ACK, b"12345678")


async def test_a_connection_that_is_to_end_takes_what_was_on_its_way_and_no_more() -> None:
    dialogue = Dialogue()
    dialogue.call(1, path="/test/Wait")
    dialogue.connection.drain()
    first, ping = dialogue.heard()
    assert struct.unpack(">LL", first.payload) == (2**31 - 1, Code.NO_ERROR)
    dialogue.call(3)
    assert answers(await dialogue.settle(), 3) == HELLO
    dialogue.send(Kind.PING, frames.ACK, 0, ping.payload)
    (last,) = dialogue.heard()
    assert struct.unpack(">LL", last.payload) == (3, Code.NO_ERROR)
    # One that does not know the rules is not answered, and costs the others nothing.
    dialogue.call(5)
    dialogue.widen(5, 5)
    dialogue.reset(5)
    assert await dialogue.settle() == []
    assert not dialogue.transport.is_closed
    dialogue.methods.release.set()
    assert answers(await dialogue.settle(), 1) == HELLO
    assert dialogue.transport.is_closed


async def test_after_a_fault_nothing_is_read_or_said() -> None:
    dialogue = Dialogue()
    dialogue.call(1, path="/test/Wait")
    dialogue.say(frames.frame(Kind.PING, 0, 0, b"") + frames.frame(Kind.PING, 0, 0, b"12345678"))
    assert [one.kind for one in dialogue.heard()] == [Kind.GOAWAY]
    dialogue.call(3)
    assert await dialogue.settle() == []
    assert dialogue.connection.num_running == 0
    assert dialogue.methods.num_entered <= 1
