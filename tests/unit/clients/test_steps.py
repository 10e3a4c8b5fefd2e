from __future__ import annotations

import random

import pytest

from motherlode.clients import query_batch
from motherlode.clients.errors import ClientError, DeadlineError, OverloadedError
from motherlode.clients.question import Question
from motherlode.clients.steps import Call, Session, Sleep, top_k_steps
from tests.support.retrieval import FakeRetrieval, FakeTransport, fail, proceed, refusal


class Clock:
    """Time that passes only in calls and pauses."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.pauses: list[float] = []
        self.timeouts: list[float] = []

    def __call__(self) -> float:
        return self.now_s


def run(fake: FakeRetrieval, clock: Clock, *, num_queries: int, timeout_s: float, call_s: float):
    """Carry out a call whose every sub-call takes `call_s` seconds."""
    session = Session(clock=clock, random=random.Random(0))
    queries = query_batch([f"q{i}" for i in range(1, num_queries + 1)])
    steps = top_k_steps(session, queries, Question(k=2), timeout_s)
    transport = FakeTransport(fake)
    resume, argument = steps.send, None
    while True:
        try:
            step = resume(argument)
        except StopIteration as stop:
            return stop.value
        resume, argument = steps.send, None
        match step:
            case Sleep():
                clock.pauses.append(step.seconds)
                clock.now_s += step.seconds
            case Call():
                clock.timeouts.append(step.timeout_s)
                clock.now_s += call_s
                try:
                    argument = transport.call(step)
                except ClientError as error:
                    resume, argument = steps.throw, error


def overloaded(retry_after_s: float | None):
    return fail(refusal("OverloadedError", "queue full", retry_after_s=retry_after_s))


def test_a_single_query_takes_one_call():
    fake, clock = FakeRetrieval(), Clock()
    result = run(fake, clock, num_queries=1, timeout_s=5, call_s=1)
    assert result.labels.tolist() == [1, 2]
    assert fake.num_info_calls == 0
    assert result.round_trip_s == 1


def test_all_parts_share_one_deadline():
    fake, clock = FakeRetrieval(), Clock()
    fake.limits.max_queries_per_call = 1
    run(fake, clock, num_queries=3, timeout_s=10, call_s=2)
    assert clock.timeouts == [10, 8, 6, 4]


def test_parts_that_take_too_long_together_end_in_a_deadline_error():
    fake, clock = FakeRetrieval(), Clock()
    fake.limits.max_queries_per_call = 1
    with pytest.raises(DeadlineError, match="within 5 s"):
        run(fake, clock, num_queries=9, timeout_s=5, call_s=2)
    assert len(fake.requests) == 2


def test_a_full_queue_is_tried_again_after_the_time_the_server_named():
    fake, clock = FakeRetrieval(script=[overloaded(0.5), overloaded(1.0)]), Clock()
    result = run(fake, clock, num_queries=1, timeout_s=10, call_s=0)
    assert result.labels.tolist() == [1, 2]
    assert 0.5 <= clock.pauses[0] <= 0.75
    assert 1.0 <= clock.pauses[1] <= 1.5


def test_a_full_queue_is_not_tried_again_beyond_the_deadline():
    fake, clock = FakeRetrieval(script=[overloaded(3.0)]), Clock()
    with pytest.raises(OverloadedError):
        run(fake, clock, num_queries=1, timeout_s=2, call_s=0)
    assert clock.pauses == []


def test_a_full_queue_without_a_time_is_not_tried_again():
    fake, clock = FakeRetrieval(script=[overloaded(None)]), Clock()
    with pytest.raises(OverloadedError):
        run(fake, clock, num_queries=1, timeout_s=2, call_s=0)
    assert len(fake.requests) == 1


def test_only_the_refused_part_of_a_batch_is_tried_again():
    fake, clock = FakeRetrieval(script=[proceed, overloaded(0.1)]), Clock()
    fake.limits.max_queries_per_call = 2
    result = run(fake, clock, num_queries=4, timeout_s=10, call_s=0)
    assert len(result) == 4
    assert [list(request.text.texts) for request in fake.requests] == [
        ["q1", "q2"],
        ["q3", "q4"],
        ["q3", "q4"],
    ]


def test_a_server_that_is_always_full_is_left_alone_at_the_deadline():
    fake, clock = FakeRetrieval(script=[overloaded(0.0)] * 10_000), Clock()
    with pytest.raises(OverloadedError):
        run(fake, clock, num_queries=1, timeout_s=1, call_s=0)
    assert 100 < len(fake.requests) < 250
