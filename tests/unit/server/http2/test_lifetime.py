"""What the clock asks of a connection."""

from __future__ import annotations

from motherlode.server.http2.lifetime import Due, Lifetime
from tests.support.http2 import limits


def lifetime(**changed: float) -> Lifetime:
    times = {"handshake_s": 1.0, "keepalive_s": 10.0, "keepalive_timeout_s": 5.0}
    more = {"idle_s": 100.0, "age_s": 1000.0, "grace_s": 30.0}
    return Lifetime(limits(**{**times, **more, **changed}), 0.0)


def due(one: Lifetime, now: float, *, is_under_way: bool = True, has_calls: bool = True) -> Due:
    return one.due(now, is_under_way=is_under_way, has_calls=has_calls)


def test_who_does_not_begin_to_speak_is_given_up() -> None:
    assert due(lifetime(), 1.0, is_under_way=False) is Due.NOTHING
    assert due(lifetime(), 1.1, is_under_way=False) is Due.ABORT
    assert due(lifetime(), 1.1) is Due.NOTHING


def test_who_is_silent_is_asked_for_a_sign_and_then_given_up() -> None:
    one = lifetime()
    one.heard = 2.0
    assert due(one, 12.0) is Due.NOTHING
    assert due(one, 12.1) is Due.PING
    one.pinged = 12.1
    assert due(one, 17.0) is Due.NOTHING
    assert due(one, 17.2) is Due.ABORT


def test_who_has_no_calls_is_asked_to_go_and_who_has_some_is_not() -> None:
    one = lifetime(keepalive_s=500.0)
    one.used = 50.0
    assert due(one, 150.0, has_calls=False) is Due.NOTHING
    assert due(one, 150.1, has_calls=False) is Due.DRAIN
    assert due(one, 150.1) is Due.NOTHING


def test_who_is_old_is_asked_to_go_and_ended_after_the_grace() -> None:
    one = lifetime(keepalive_s=5000.0)
    assert due(one, 1000.1) is Due.DRAIN
    one.drained = 1000.1
    assert due(one, 1030.0) is Due.NOTHING
    assert due(one, 1030.2) is Due.END


def test_who_was_asked_to_go_still_has_to_give_signs() -> None:
    one = lifetime(grace_s=500.0)
    one.heard = one.drained = 1000.0
    assert due(one, 1010.1) is Due.PING
    one.pinged = 1010.1
    assert due(one, 1015.2) is Due.ABORT
