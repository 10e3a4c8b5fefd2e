"""Whatever a caller does, in whatever order: the connection lives, or says why it ends."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motherlode.server.http2.frames import Kind, frame
from motherlode.server.http2.messages import prefixed
from tests.support.http2 import Dialogue

IDS = st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1])
FRAMES = st.builds(
    frame, st.sampled_from(list(Kind)), st.integers(0, 63), IDS, st.binary(max_size=40)
)
PATHS = st.sampled_from(["/test/Echo", "/test/EchoEach", "/test/Repeat", "/test/Wait", "/?"])


@st.composite
def talks(draw: st.DrawFn) -> list[Any]:
    """What a caller does: calls, frames of any kind, broken ones, and bytes of any kind."""
    deed = st.one_of(
        st.tuples(st.just("open"), IDS, PATHS),
        st.tuples(st.just("data"), IDS, st.sampled_from([b"2000", b"100000"]).map(prefixed)),
        st.tuples(st.just("last"), IDS, st.binary(max_size=20)),
        st.tuples(st.just("widen"), IDS, st.sampled_from([1, 1000, 2**20])),
        st.tuples(st.just("reset"), IDS),
        st.tuples(st.just("say"), FRAMES),
        st.tuples(st.just("broken"), FRAMES, st.integers(0, 60), st.integers(0, 255)),
        st.tuples(st.just("say"), st.binary(max_size=30)),
        st.tuples(st.sampled_from(["pause", "resume", "run", "drain", "look"])),
    )
    return draw(st.lists(deed, max_size=25))


async def act(dialogue: Dialogue, deed: Any) -> None:
    kind, *more = deed
    if kind == "open":
        dialogue.open(*more)
    elif kind in {"data", "last"}:
        dialogue.data(*more, is_last=kind == "last")
    elif kind in {"widen", "reset"}:
        getattr(dialogue, kind)(*more)
    elif kind == "say":
        dialogue.say(*more)
    elif kind == "broken":
        data, place, value = bytearray(more[0]), more[1] % len(more[0]), more[2]
        data[place] = value
        dialogue.say(bytes(data))
    elif kind == "run":
        await asyncio.sleep(0)
    elif kind == "look":
        dialogue.connection.look(0.0)
    else:
        named = {"pause": "pause_writing", "resume": "resume_writing", "drain": "drain"}
        getattr(dialogue.connection, named[kind])()


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(deeds=talks())
def test_whatever_comes_the_connection_lives_or_says_why_it_ends(deeds: list[Any]) -> None:
    async def talk() -> None:
        dialogue = Dialogue()
        for deed in deeds:
            await act(dialogue, deed)
        dialogue.connection.resume_writing()
        await dialogue.settle()
        if not dialogue.transport.is_closed:
            assert dialogue.connection.is_under_way or dialogue.connection.num_calls
        dialogue.connection.connection_lost(None)
        await dialogue.settle()
        assert dialogue.connection.num_calls == dialogue.connection.num_running == 0
        assert dialogue.connection.outflow.num_unsent == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(talk())
