"""Two clients of HTTP/2 that know nothing of each other find the same, however frames are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motherlode.server.http2.messages import prefixed
from tests.support.h2_caller import H2Caller, Heard, h2_caller
from tests.support.http2_server import LOOPS, Running, ask, ask_each, running


@dataclass(frozen=True)
class Plan:
    """One call: what is asked, and how its bytes are sent."""

    path: str
    messages: tuple[bytes, ...]
    cuts: tuple[int, ...]
    paddings: tuple[int, ...]
    ends_apart: bool
    is_given_up: bool

    def frames(self) -> Iterator[tuple[bytes, int | None, bool]]:
        """Content and padding of each DATA frame, and whether it is the last."""
        data = b"".join(map(prefixed, self.messages))
        places = [0, *sorted(cut % (len(data) + 1) for cut in self.cuts), len(data)]
        pieces = [data[i:j] for i, j in pairwise(places)]
        pieces += [b""] * self.ends_apart
        for i, piece in enumerate(pieces):
            padding = self.paddings[i % len(self.paddings)] if self.paddings else None
            yield piece, padding, i == len(pieces) - 1


ONE = st.tuples(st.binary(max_size=300))
NUMBER = st.tuples(st.sampled_from([b"0", b"3000", b"50000", b"120000"]))
ASKED = st.one_of(
    st.tuples(st.just("/test/Echo"), ONE),
    st.tuples(st.just("/test/Repeat"), NUMBER),
    st.tuples(st.just("/test/Abort"), ONE),
    st.tuples(st.just("/test/None"), ONE),
    st.tuples(st.just("/test/EchoEach"), st.lists(st.binary(max_size=200), max_size=5).map(tuple)),
)
PLANS = st.builds(
    lambda asked, *how: Plan(*asked, *how),
    ASKED,
    st.lists(st.integers(0, 600), max_size=4).map(tuple),
    st.lists(st.integers(0, 255) | st.none(), max_size=3).map(tuple),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)
BETWEEN = st.sampled_from(["", "", "ping", "priority", "window", "read"])


async def do_between(caller: H2Caller, what: str, stream_id: int) -> None:
    if what == "ping":
        caller.h2.ping(b"whatever")
    elif what == "priority":
        caller.h2.prioritize(stream_id, weight=7, depends_on=0)
    elif what == "window":
        size = 1000 + 7 * stream_id
        caller.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
    elif what == "read":
        await caller.round_trip()
    await caller.flush()


async def send_call(caller: H2Caller, stream_id: int, plan: Plan) -> AsyncGenerator[None, None]:
    """Sends one frame after the other of a call."""
    try:
        for data, padding, is_last in plan.frames():
            if plan.is_given_up and is_last:
                caller.h2.reset_stream(stream_id, 8)
            else:
                caller.h2.send_data(stream_id, data, end_stream=is_last, pad_length=padding)
            yield
    except StreamClosedError:
        # It was answered before its end.
        return


async def carry_out(
    caller: H2Caller, plans: list[Plan], turns: list[tuple[int, str]]
) -> list[Heard]:
    """The answers to calls whose frames are sent in some order, with others between them."""
    ids = [caller.open(plan.path) for plan in plans]
    left = [send_call(caller, *one) for one in zip(ids, plans, strict=True)]
    for i in range(10**6):
        if not left:
            break
        turn, between = turns[i % len(turns)]
        sending = left[turn % len(left)]
        if await anext(sending, "over") == "over":
            left.remove(sending)
        await do_between(caller, between, ids[turn % len(ids)])
    kept = [caller.heard[one] for one, plan in zip(ids, plans, strict=True) if not plan.is_given_up]
    await caller.until(lambda: all(heard.is_over for heard in kept))
    return kept


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.fixture(scope="module")
def shared(loop: asyncio.Runner) -> Iterator[Running]:
    entered = running()
    yield loop.run(entered.__aenter__())
    loop.run(entered.__aexit__(None, None, None))


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    plans=st.lists(PLANS, min_size=1, max_size=5),
    turns=st.lists(st.tuples(st.integers(0, 4), BETWEEN), min_size=1, max_size=12),
)
def test_however_frames_are_sent_the_answers_are_those_of_grpcs_own_client(
    loop: asyncio.Runner, shared: Running, plans: list[Plan], turns: list[tuple[int, str]]
) -> None:
    async def both() -> tuple[list[Any], list[Any]]:
        async with h2_caller(shared.port) as caller:
            heard = await carry_out(caller, plans, turns)
            kept = [plan for plan in plans if not plan.is_given_up]
            expected = [
                await ask_each(shared.channel, plan.path, list(plan.messages))
                if plan.path == "/test/EchoEach"
                else await ask(shared.channel, plan.path, plan.messages[0])
                for plan in kept
            ]
            return [(one.code, one.messages) for one in heard], expected

    found, expected = loop.run(both())
    assert found == expected
