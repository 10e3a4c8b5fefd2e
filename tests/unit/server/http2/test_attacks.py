"""Callers who mean no good: a bounded number of frames, bytes and objects is all that they get."""

from __future__ import annotations

import asyncio
import gc
import gzip
import struct
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from motherlode.core.errors import MotherlodeError
from motherlode.server.http2 import frames
from motherlode.server.http2.frames import Code, Kind, Setting, frame
from motherlode.server.http2.messages import prefixed
from motherlode.server.http2.stream import Stream
from tests.support.http2 import MIB, Dialogue, answers, codes
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

MANY = 20_000
FLOODS = {
    "pings": frame(Kind.PING, 0, 0, bytes(8)),
    "answers to no ping": frame(Kind.PING, frames.ACK, 0, bytes(8)),
    "settings": frame(Kind.SETTINGS, 0, 0),
    "acknowledgements": frame(Kind.SETTINGS, frames.ACK, 0),
    "priorities": frame(Kind.PRIORITY, 0, 1, bytes(5)),
    "farewells": frame(Kind.GOAWAY, 0, 0, bytes(8)),
    "unknown frames": b"\x00\x00\x00\xee\x00\x00\x00\x00\x00",
    "windows of a byte": frame(Kind.WINDOW_UPDATE, 0, 0, b"\x00\x00\x00\x01"),
    "empty data": frame(Kind.DATA, 0, 1),
    "ends of what has ended": frame(Kind.RST_STREAM, 0, 1, bytes(4)),
    "trailers of what has ended": frame(Kind.HEADERS, frames.END_HEADERS, 1),
}


@pytest.mark.parametrize("what", sorted(FLOODS))
async def test_a_flood_ends_the_connection(what: str) -> None:
    dialogue = Dialogue()
    dialogue.call(1)
    await dialogue.settle()
    dialogue.say(FLOODS[what] * MANY)
    assert dialogue.fault() is Code.ENHANCE_YOUR_CALM


async def test_so_do_calls_that_are_given_up_as_soon_as_they_were_made() -> None:
    dialogue = Dialogue()
    for stream_id in range(1, 2 * MANY, 2):
        dialogue.call(stream_id, path="/test/Wait")
        dialogue.reset(stream_id)
        if dialogue.transport.is_closed:
            break
        assert dialogue.connection.num_running <= dialogue.host.limits.max_calls
    assert dialogue.fault() is Code.ENHANCE_YOUR_CALM


async def test_good_calls_make_up_for_frames_between_them() -> None:
    dialogue = Dialogue()
    for stream_id in range(1, 4000, 2):
        dialogue.say(FLOODS["pings"] * 8)
        dialogue.call(stream_id)
        await dialogue.settle()
    assert dialogue.fault() is None


async def test_time_makes_up_for_them_too() -> None:
    dialogue = Dialogue()
    for _ in range(4):
        dialogue.say(FLOODS["pings"] * 8000)
        dialogue.connection.look(0.0)
    assert dialogue.fault() is None


async def test_settings_that_touch_many_streams_cost_more_than_others() -> None:
    dialogue = Dialogue(max_calls=4000)
    for stream_id in range(1, 8000, 2):
        dialogue.open(stream_id)
    change = frame(Kind.SETTINGS, 0, 0, struct.pack(">HL", Setting.INITIAL_WINDOW_SIZE, 5) * 1000)
    dialogue.say(change * 300)
    assert dialogue.fault() is Code.ENHANCE_YOUR_CALM


async def test_windows_that_grow_by_bytes_are_given_to_one_stream_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialogue = Dialogue(max_calls=1000)
    for stream_id in range(1, 1000, 2):
        dialogue.call(stream_id, b"65000", "/test/Repeat")
    await dialogue.settle()
    pumped: list[int] = []
    pump = Stream.pump
    monkeypatch.setattr(Stream, "pump", lambda one: (pumped.append(one.id), pump(one)))
    for _ in range(100):
        dialogue.widen(0, 1)
    assert len(pumped) == 100
    assert len(set(pumped)) == 100


@pytest.mark.parametrize("path", ["/test/None", "/test/Fail", "/test/Echo"])
async def test_answers_that_nobody_fetches_end_the_connection(path: str) -> None:
    dialogue = Dialogue()
    dialogue.connection.pause_writing()
    for stream_id in range(1, 10_000, 2):
        dialogue.call(stream_id, path=path)
        # The method runs, and says what it has to.
        await asyncio.sleep(0)
        dialogue.reset(stream_id)
        dialogue.connection.look(0.0)
        dialogue.transport.num_unfetched = 2**22 - 2**16 + len(dialogue.transport.sent)
        if dialogue.transport.is_closed:
            break
    assert dialogue.fault() is Code.ENHANCE_YOUR_CALM


async def test_refusals_that_nobody_fetches_end_the_connection() -> None:
    dialogue = Dialogue(max_calls=1)
    dialogue.call(1, path="/test/Wait")
    dialogue.connection.pause_writing()
    for stream_id in range(3, 20_000, 2):
        dialogue.open(stream_id)
        dialogue.connection.look(0.0)
        dialogue.transport.num_unfetched = 2**22 - 2**16 + len(dialogue.transport.sent)
        if dialogue.transport.is_closed:
            break
    assert dialogue.fault() is Code.ENHANCE_YOUR_CALM


async def test_who_leaves_many_answers_lying_gets_no_more() -> None:
    dialogue = Dialogue(max_message_bytes=MIB)
    num_answered, stream_id = 0, 1
    while True:
        dialogue.call(stream_id, b"1000000", "/test/Repeat")
        heard = await dialogue.settle()
        if heard and heard[-1].flags & frames.END_STREAM:
            break
        num_answered, stream_id = num_answered + 1, stream_id + 2
    told = dialogue.headers(heard[-1])
    assert codes(told) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "bytes of answers wait on this connection" in told["grpc-message"]
    assert num_answered < 10
    # Once they are fetched there is room again.
    dialogue.widen(0, 2**30)
    for one in range(1, stream_id, 2):
        dialogue.widen(one, 2 * MIB)
    assert dialogue.connection.outflow.num_unsent == 0
    await dialogue.settle()
    dialogue.call(stream_id + 2)
    assert answers(await dialogue.settle(), stream_id + 2) == prefixed(b"hello")


async def test_compressed_messages_that_wait_are_still_compressed() -> None:
    unpacked: list[int] = []

    async def read_one(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        unpacked.append(len(await anext(requests)))
        await asyncio.Event().wait()
        yield b""

    dialogue = Dialogue()
    dialogue.methods.add("/test/ReadOne", read_one, takes_stream=True)
    bomb = gzip.compress(bytes(4 * MIB))
    dialogue.open(1, "/test/ReadOne", grpc_encoding="gzip")
    tracemalloc.start()
    for _ in range(100):
        dialogue.data(1, b"\x01" + struct.pack(">L", len(bomb)) + bomb)
    await dialogue.settle()
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert unpacked == [4 * MIB]
    assert held_bytes < 8 * MIB


async def test_a_method_that_never_pauses_learns_that_its_caller_is_gone() -> None:
    entered = asyncio.Event()

    async def endless(*_: Any) -> AsyncIterator[bytes]:
        entered.set()
        while True:
            yield bytes(1000)

    dialogue = Dialogue()
    dialogue.methods.add("/test/Endless", endless, takes_stream=False)
    dialogue.call(1, path="/test/Endless")
    await entered.wait()
    dialogue.reset(1)
    await until(lambda: dialogue.connection.num_running == 0)


IDS = range(1, 40, 2)


def call_and_reset(dialogue: Dialogue) -> None:
    for stream_id in IDS:
        dialogue.call(stream_id, path="/test/Wait")
        dialogue.reset(stream_id)


async def call_and_reset_later(dialogue: Dialogue) -> None:
    for stream_id in IDS:
        dialogue.call(stream_id, path="/test/Wait")
        await asyncio.sleep(0)
        dialogue.reset(stream_id)


def call(path: str) -> Callable[[Dialogue], None]:
    return lambda dialogue: [dialogue.call(stream_id, path=path) for stream_id in IDS] and None


def call_too_late(dialogue: Dialogue) -> None:
    for stream_id in IDS:
        dialogue.open(stream_id, "/test/Wait", grpc_timeout="1u")
        dialogue.data(stream_id, prefixed(b"hello"), is_last=True)


def begin_streams(dialogue: Dialogue) -> None:
    for stream_id in IDS:
        dialogue.open(stream_id, "/test/EchoEach", grpc_timeout="1H")
        dialogue.data(stream_id, prefixed(b"hello"))


def leave_answers(dialogue: Dialogue) -> None:
    for stream_id in IDS:
        dialogue.call(stream_id, b"100000", "/test/Repeat")


ENDINGS: dict[str, Callable[[Dialogue], Any]] = {
    "given up before they start": call_and_reset,
    "given up": call_and_reset_later,
    "answered": call("/test/Echo"),
    "aborted": call("/test/Abort"),
    "refused": call("/test/None"),
    "too late": call_too_late,
}
CUT_SHORT: dict[str, Callable[[Dialogue], Any]] = {
    "streams": begin_streams,
    "answers that nobody fetched": leave_answers,
    "calls": call("/test/Wait"),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """All streams; without full collections, which would hide what refers to itself.

    In a server they are rare.
    """
    seen: list[weakref.ref[Any]] = []
    begin = Stream.__init__

    def note(self: Any, *args: Any) -> None:
        seen.append(weakref.ref(self))
        begin(self, *args)

    monkeypatch.setattr(Stream, "__init__", note)
    gc.collect()
    gc.disable()
    yield seen
    gc.enable()


def living(seen: list[weakref.ref[Any]]) -> list[Any]:
    assert len(seen) == len(IDS)
    return [one() for one in seen if one() is not None]


@pytest.mark.parametrize("how", sorted(ENDINGS))
async def test_nothing_stays_of_calls_that_are_over(how: str, seen: list[weakref.ref[Any]]) -> None:
    dialogue = Dialogue()
    if (work := ENDINGS[how](dialogue)) is not None:
        await work
    await until(lambda: not dialogue.connection.num_calls)
    await dialogue.settle()
    assert living(seen) == []
    assert dialogue.connection.num_running == 0


@pytest.mark.parametrize("how", sorted(CUT_SHORT))
async def test_nothing_stays_of_a_connection_that_was_lost(
    how: str, seen: list[weakref.ref[Any]]
) -> None:
    dialogue = Dialogue()
    CUT_SHORT[how](dialogue)
    await dialogue.settle()
    dialogue.connection.connection_lost(None)
    await dialogue.settle()
    assert living(seen) == []
    assert dialogue.host.gone == [1]
    connection = weakref.ref(dialogue.connection)
    del dialogue
    assert connection() is None
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_of_the_guard_refuses_the_call() -> None:
    dialogue = Dialogue()
    dialogue.host.refusal = MotherlodeError("not you")
    dialogue.call(1)
    (end,) = await dialogue.settle()
    assert codes(dialogue.headers(end)) is grpc.StatusCode.INTERNAL
    assert dialogue.methods.num_entered == 0
