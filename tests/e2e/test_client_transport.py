"""Both clients over real connections to a server with planted answers and faults."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2

from motherlode.clients import (
    AsyncClient,
    Client,
    DeadlineError,
    InvalidArgumentError,
    OverloadedError,
    ServerError,
    UnavailableError,
)
from tests.support.callers import CALLERS, Caller
from tests.support.fake_server import TIMEOUT_S, FakeServicer, RefusedError, fake_server
from tests.support.retrieval import FakeRetrieval, fail


@pytest.fixture
def fake() -> FakeRetrieval:
    return FakeRetrieval()


@pytest.fixture
def served(fake) -> Iterator[tuple[str, FakeServicer]]:
    with fake_server(fake) as address_and_servicer:
        yield address_and_servicer


@pytest.fixture
def address(served) -> str:
    return served[0]


@pytest.fixture
def servicer(served) -> FakeServicer:
    return served[1]


@pytest.fixture(params=CALLERS)
def caller(request, address) -> Caller:
    return CALLERS[request.param](address, timeout_s=TIMEOUT_S)


def refused(code: grpc.StatusCode, message: str = "no", *details):
    return fail(RefusedError(code, message, *details))


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1e9))
    return info


BATCHES = [[f"q{i}"] for i in range(1, 31)]
EXPECTED = [[i] for i in range(1, 31)]


def test_a_batch_makes_the_round_trip(caller):
    result = caller.top_k(["q7", "q8"], 2)
    assert result.labels.tolist() == [7, 8, 8, 9]
    assert result.texts == ["topic7", "topic8", "topic8", "topic9"]


def test_a_server_that_is_away_for_a_moment_is_tried_again(caller, fake):
    fake.script = [refused(grpc.StatusCode.UNAVAILABLE)] * 2
    assert caller.top_k(["q7"], 1).labels.tolist() == [7]
    assert len(fake.requests) == 3


def test_a_server_that_stays_away_is_given_up(caller, fake):
    fake.script = [refused(grpc.StatusCode.UNAVAILABLE)] * 99
    with pytest.raises(UnavailableError):
        caller.top_k(["q7"], 1)
    assert len(fake.requests) == 4


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
def test_a_failed_call_is_not_tried_again(caller, fake, code):
    fake.script = [refused(code, "boom")]
    with pytest.raises(ServerError, match="boom"):
        caller.top_k(["q7"], 1)
    assert len(fake.requests) == 1


def test_a_full_queue_is_tried_again_if_the_server_says_when(caller, fake):
    fake.script = [refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_info(0.01))] * 2
    assert caller.top_k(["q7"], 1).labels.tolist() == [7]
    assert len(fake.requests) == 3


def test_a_full_queue_is_not_tried_again_if_the_server_does_not_say_when(caller, fake):
    fake.script = [refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")]
    with pytest.raises(OverloadedError, match="full"):
        caller.top_k(["q7"], 1)
    assert len(fake.requests) == 1


def test_the_fields_that_the_server_finds_wrong_reach_the_caller(caller, fake):
    request = error_details_pb2.BadRequest()
    request.field_violations.add(field="k", description="expected 1 to 50, got 99")
    fake.script = [refused(grpc.StatusCode.INVALID_ARGUMENT, "k: too large", request)]
    with pytest.raises(InvalidArgumentError) as caught:
        caller.top_k(["q7"], 99)
    assert [violation.field for violation in caught.value.violations] == ["k"]


@pytest.mark.parametrize("kind", CALLERS)
def test_an_address_where_nothing_listens_is_a_plain_error(kind):
    caller = CALLERS[kind]("127.0.0.1:1", timeout_s=TIMEOUT_S)
    with pytest.raises(UnavailableError, match=r"no server answers at 127\.0\.0\.1:1 \("):
        caller.top_k(["q7"], 1)


def test_an_answer_that_does_not_come_ends_at_the_deadline(caller, fake, address):
    released = threading.Event()
    fake.script = [lambda _: released.wait(TIMEOUT_S)]
    try:
        with pytest.raises(DeadlineError, match=f"no answer from {address} within 0.2 s"):
            caller.top_k(["q7"], 1, timeout_s=0.2)
    finally:
        released.set()


def test_an_answer_larger_than_grpcs_own_limit_arrives(caller):
    result = caller.top_k(["q7"] * 20, 10_000)
    assert len(result.labels) == 200_000


def test_health_and_server_info_are_served(caller):
    assert caller.server_info().models[0].name == "tiny"
    assert caller.health() == "serving"
    assert caller.health("broken") == "not_serving"
    assert caller.health("nix") == "unknown"


@pytest.mark.parametrize("kind", CALLERS)
def test_metadata_travels_with_each_call(kind, address, servicer):
    caller = CALLERS[kind](address, metadata=[("x-api-key", "secret")], timeout_s=TIMEOUT_S)
    caller.top_k(["q7"], 1)
    assert servicer.metadata["x-api-key"] == "secret"


def test_a_stream_answers_batch_by_batch(caller, servicer):
    results = caller.top_k_stream(BATCHES, 1)
    assert [result.labels.tolist() for result in results] == EXPECTED
    assert servicer.num_stream_requests == 30


def test_a_stream_that_breaks_loses_no_batch_and_repeats_none(caller, servicer):
    def break_once(number: int) -> None:
        if number == 10:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "going away")

    servicer.before_stream_answer = break_once
    results = caller.top_k_stream(BATCHES, 1)
    assert [result.labels.tolist() for result in results] == EXPECTED


def test_a_stream_whose_server_falls_silent_ends_at_the_deadline(caller, servicer):
    released = threading.Event()
    servicer.before_stream_answer = lambda number: number < 3 or released.wait(TIMEOUT_S)
    try:
        with pytest.raises(DeadlineError, match=r"within 0\.3 s"):
            caller.top_k_stream(BATCHES, 1, timeout_s=0.3)
    finally:
        released.set()


def test_a_stream_that_the_caller_leaves_ends_at_the_server_too(caller, servicer):
    assert len(caller.top_k_stream(BATCHES, 1, take=2)) == 2
    assert servicer.streams_over.acquire(timeout=TIMEOUT_S)


def test_a_stream_of_large_batches_does_not_stall(caller):
    batches = [[f"q{i}" for i in range(1, 201)]] * 12
    assert [len(result) for result in caller.top_k_stream(batches, 300)] == [200] * 12


def test_a_stream_to_nowhere_is_a_plain_error():
    with Client("127.0.0.1:1", timeout_s=TIMEOUT_S) as client, pytest.raises(UnavailableError):
        next(client.top_k_stream(BATCHES, 1))


def test_threads_share_one_client(address):
    with Client(address, timeout_s=TIMEOUT_S) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: client.top_k([f"q{i}", "q1"], 1), range(1, 65)))
    assert [answer.labels.tolist() for answer in answers] == [[i, 1] for i in range(1, 65)]


@pytest.mark.asyncio
async def test_tasks_share_one_client(address):
    async with AsyncClient(address, timeout_s=TIMEOUT_S) as client:
        answers = await asyncio.gather(*(client.top_k([f"q{i}"], 1) for i in range(1, 65)))
    assert [answer.labels.tolist() for answer in answers] == [[i] for i in range(1, 65)]


@pytest.mark.asyncio
async def test_a_task_that_is_cancelled_leaves_the_client_usable(address, fake):
    entered, released = threading.Event(), threading.Event()

    def block(_: FakeRetrieval) -> None:
        entered.set()
        released.wait(TIMEOUT_S)

    fake.script = [block]
    async with AsyncClient(address, timeout_s=TIMEOUT_S) as client:
        task = asyncio.create_task(client.top_k(["q7"], 1))
        assert await asyncio.to_thread(entered.wait, TIMEOUT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        released.set()
        assert (await client.top_k(["q8"], 1)).labels.tolist() == [8]
