from __future__ import annotations

import asyncio
from typing import Any

import pytest

from motherlode.core.errors import OverloadedError, RequestTooLargeError
from motherlode.server.fair_queue import FairQueue
from motherlode.server.queue_limits import Admission, Pace, QueueLimits
from tests.support.waiting_calls import waiting_call

NOW = 1000.0


class Gate:
    """An admission before a queue that nobody takes from, at a millisecond a query."""

    def __init__(
        self, max_queries: int = 100, max_bytes: int = 1000, max_delay_s: float = 1.0
    ) -> None:
        self.queue = FairQueue(lambda _: True)
        self.refusals: list[str] = []
        self.admission = Admission(
            QueueLimits(max_queries, max_bytes, max_delay_s, max_batch=3),
            self.queue,
            lambda refusal: self.refusals.append(refusal.reason),
        )

    def submit(self, num_queries: int = 1, **fields: Any) -> None:
        call = waiting_call(num_queries, **fields)
        self.admission.admit(call, NOW)
        self.queue.put(call)

    def refuse(self, num_queries: int = 1, *, now: float = NOW, **fields: Any) -> OverloadedError:
        with pytest.raises(OverloadedError) as refusal:
            self.admission.admit(waiting_call(num_queries, **fields), now)
        assert self.refusals[-1] == refusal.value.reason
        assert refusal.value.retry_after_s > 0
        return refusal.value


def test_a_full_queue_refuses_by_queries() -> None:
    gate = Gate(max_queries=5)
    gate.submit(3)
    gate.submit(2)
    assert gate.refuse().reason == "QUEUE_FULL"


def test_a_full_queue_refuses_by_bytes() -> None:
    gate = Gate(max_bytes=50)
    gate.submit(num_bytes=30)
    assert gate.refuse(num_bytes=21).reason == "QUEUE_BYTES"
    gate.submit(num_bytes=20)


@pytest.mark.parametrize(
    ("num_queries", "num_bytes", "expected"),
    [(6, 1, "at most 5 queries"), (1, 51, "at most 50 bytes")],
)
def test_what_would_never_fit_is_too_large_whatever_waits(
    num_queries: int, num_bytes: int, expected: str
) -> None:
    with pytest.raises(RequestTooLargeError, match=expected):
        Gate(max_queries=5, max_bytes=50).submit(num_queries, num_bytes=num_bytes)


def test_a_call_that_would_wait_too_long_is_refused() -> None:
    gate = Gate(max_delay_s=0.005)
    gate.submit(4)
    gate.submit()
    gate.submit()
    refusal = gate.refuse()
    assert refusal.reason == "QUEUE_DELAY"
    assert refusal.retry_after_s == pytest.approx(0.01)


def test_the_batch_under_way_is_waited_for_too() -> None:
    gate = Gate(max_delay_s=0.005)
    gate.admission.begin(10, NOW - 0.002)
    for _ in range(3):
        gate.submit()
    refusal = gate.refuse()
    assert "a wait of 0.011 s is expected" in str(refusal)
    assert refusal.retry_after_s == pytest.approx(0.011)
    gate.admission.end(10, 0.01)
    gate.submit()


def test_a_batch_that_follows_the_one_under_way_is_waited_for_too() -> None:
    gate = Gate(max_delay_s=0.015)
    assert gate.admission.begin(10, NOW) == pytest.approx(0.01)
    gate.admission.follow(3)
    for _ in range(2):
        gate.submit()
    refusal = gate.refuse(deadline=NOW + 0.004)
    assert refusal.reason == "QUEUE_DEADLINE"
    assert "a wait of 0.005 s is expected" in str(refusal)
    gate.submit()
    assert "a wait of 0.016 s is expected" in str(gate.refuse())
    gate.admission.end(10, 0.01)
    gate.admission.begin(3, NOW)
    gate.submit()


def overloaded() -> Gate:
    """Of 10 ms, 4 are allowed; 8 calls wait."""
    gate = Gate(max_delay_s=0.01)
    for _ in range(11):
        gate.submit()
    for now in (NOW - 0.1, NOW):
        assert "at most 0.01 s is allowed" in str(gate.refuse(now=now))
    while gate.queue.num_left > 8:
        gate.queue.take(lambda _: 1)
    assert "at most 0.004 s is allowed" in str(gate.refuse())
    return gate


def test_in_an_overload_calls_may_wait_less_until_nothing_waits() -> None:
    gate = overloaded()
    gate.admission.rest()
    for _ in range(3):
        gate.submit()
    assert "at most 0.01 s is allowed" in str(gate.refuse())


def test_an_overload_ends_where_all_would_be_answered_in_time() -> None:
    gate = overloaded()
    # These are refused for the overload alone, and do not make it longer.
    assert "at most 0.004 s is allowed" in str(gate.refuse(now=NOW + 9.9))
    gate.admission.admit(waiting_call(), NOW + 10.1)


def test_an_overload_goes_on_where_the_first_who_may_wait_longer_is_refused() -> None:
    gate = overloaded()
    for _ in range(3):
        gate.queue.put(waiting_call())
    assert "at most 0.01 s is allowed" in str(gate.refuse(now=NOW + 10.1))
    assert "at most 0.004 s is allowed" in str(gate.refuse(now=NOW + 10.1))


@pytest.mark.parametrize("pause_s", [0.09, 1.1])
def test_bursts_are_no_overload(pause_s: float) -> None:
    gate = Gate(max_delay_s=0.01)
    for _ in range(11):
        gate.submit()
    gate.refuse(now=NOW - pause_s)
    for _ in range(2):
        assert "at most 0.01 s is allowed" in str(gate.refuse())


def test_who_floods_the_queue_makes_no_overload_of_it() -> None:
    gate = Gate(max_delay_s=0.01)
    for caller in "abcdef":
        gate.submit(caller=caller)
    while gate.queue.num_left < 11:
        gate.submit(caller="flood", is_patient=True)
    gate.refuse(caller="flood", now=NOW - 0.1)
    gate.refuse(caller="flood")
    for caller in "ghij":
        gate.submit(caller=caller)
    gate.refuse(caller="l")
    assert "at most 0.01 s is allowed" in str(gate.refuse(caller="l"))


def test_the_batch_under_way_keeps_nobody_from_a_deadline_where_nothing_waits() -> None:
    gate = Gate(max_delay_s=10.0)
    gate.admission.begin(1000, NOW)
    gate.submit(deadline=NOW + 0.01)
    gate.submit(deadline=NOW + 0.01)
    gate.submit(50)
    assert gate.refuse(deadline=NOW + 0.01).reason == "QUEUE_DEADLINE"


def test_a_batch_is_expected_to_take_what_batches_of_its_size_took() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note(1, 0.005)
        pace.note(64, 0.01)
    assert pace.duration_of(64) == pytest.approx(0.01)
    assert pace.duration_of(1) == pytest.approx(0.005)
    assert 0 < pace.duration_of(8) < 0.04


def test_a_few_calls_may_wait_however_large_they_are() -> None:
    gate = Gate(max_delay_s=0.005)
    gate.submit(40)
    gate.submit(40)
    gate.submit()
    assert gate.refuse().reason == "QUEUE_DELAY"


def test_a_whole_batch_may_wait_however_long_it_takes() -> None:
    gate = Gate(max_delay_s=0.001)
    for _ in range(3):
        gate.submit()
    assert gate.refuse().reason == "QUEUE_DELAY"


def test_a_large_call_is_not_too_late_because_it_takes_long_itself() -> None:
    Gate(max_delay_s=0.005).submit(50)


def test_a_patient_call_may_wait_as_long_as_its_deadline_lets_it() -> None:
    gate = Gate(max_delay_s=0.005)
    gate.submit(50)
    gate.submit(is_patient=True)
    assert gate.refuse(is_patient=True, deadline=NOW + 0.01).reason == "QUEUE_DEADLINE"


def test_the_wait_of_one_caller_does_not_refuse_another() -> None:
    gate = Gate(max_delay_s=0.005)
    for _ in range(3):
        gate.submit(20, caller="bulk")
    gate.refuse(caller="bulk")
    gate.submit(caller="single")


def test_a_call_whose_deadline_will_pass_while_it_waits_is_refused_at_once() -> None:
    gate = Gate()
    gate.submit(20)
    assert gate.refuse(deadline=NOW + 0.01).reason == "QUEUE_DEADLINE"
    gate.submit(deadline=NOW + 0.03)


def test_a_deadline_that_has_passed_already_is_left_to_the_queue() -> None:
    gate = Gate()
    gate.submit(20)
    gate.submit(deadline=NOW - 1.0)


@pytest.mark.asyncio
async def test_a_full_queue_makes_room_at_the_cost_of_who_has_most_in_it() -> None:
    gate = Gate(max_queries=6)
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for i, future in enumerate(futures):
        gate.submit(2, caller="bulk", future=future, arrived=i)
    gate.submit(caller="single")
    assert [future.done() for future in futures] == [False, False, True]
    refusal = futures[2].exception()
    assert isinstance(refusal, OverloadedError)
    assert (refusal.reason, gate.refusals) == ("QUEUE_FULL", ["QUEUE_FULL"])
    gate.refuse(2, caller="bulk")


def test_nobody_makes_room_in_vain() -> None:
    gate = Gate(max_queries=12)
    for i in range(2):
        gate.submit(6, caller="bulk", arrived=i)
    # One of the two would not do, and then nobody has more than the new caller would have.
    assert gate.refuse(7, caller="other").reason == "QUEUE_FULL"
    assert (gate.queue.num_left, gate.refusals) == (12, ["QUEUE_FULL"])
    assert [part.stop for part in gate.queue.take(lambda _: 20)] == [6, 6]


def test_the_pace_is_that_of_the_latest_batches() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note(10, 0.05)
    assert pace.seconds_per_query == pytest.approx(0.005, rel=0.01)
    for _ in range(3):
        pace.note(100, 0.1)
    # Three large batches say more than a hundred small ones did.
    assert pace.seconds_per_query < 0.0025


def paced(fixed_s: float, each_s: float, *sizes: int) -> Pace:
    pace = Pace()
    for size in sizes:
        pace.note(size, fixed_s + each_s * size)
    return pace


def test_where_batches_cost_as_much_as_their_queries_a_short_queue_is_enough() -> None:
    assert paced(0.0001, 0.01, 1, 40).efficient_batch(64) == 4
    assert paced(0.00001, 0.0006, 1, 40).efficient_batch(64) == pytest.approx(7, abs=1)
    assert paced(0.000001, 0.0001, 1, 40).efficient_batch(64) == 16


def test_where_a_batch_costs_as_much_as_a_query_it_may_be_as_large_as_can_be() -> None:
    assert paced(0.1, 0.0, 1, 40).efficient_batch(64) == 64
    assert paced(0.1, 0.001, 1, 40).efficient_batch(64) == 64


def test_in_between_the_fixed_cost_is_made_a_small_part_of_the_whole() -> None:
    assert paced(0.003, 0.001, 1, 50).efficient_batch(64) == pytest.approx(30, abs=1)


def test_as_long_as_nothing_is_known_of_small_or_large_batches_any_may_wait() -> None:
    assert Pace().efficient_batch(64) == 64
    assert paced(0.0001, 0.01, 1, 1).efficient_batch(64) == 64


def test_a_lucky_large_batch_does_no_harm() -> None:
    pace = Pace()
    pace.note(1, 0.1)
    pace.note(40, 0.05)
    assert pace.efficient_batch(64) == 64
