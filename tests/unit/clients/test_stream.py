"""Streams of both clients over a transport without a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from motherlode.clients import (
    AsyncClient,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    query_batch,
)
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.callers import CALLERS
from tests.support.retrieval import AsyncFakeTransport, FakeRetrieval, FakeTransport, refusal


@pytest.fixture
def fake() -> FakeRetrieval:
    return FakeRetrieval()


@pytest.fixture
def transport(fake):
    return FakeTransport(fake)


@pytest.fixture(params=CALLERS)
def caller(request, transport):
    return CALLERS[request.param]("fake", transport)


def batches(num_batches: int) -> list[list[str]]:
    return [[f"q{2 * i + 1}", f"q{2 * i + 2}"] for i in range(num_batches)]


def firsts(results) -> list[list[int]]:
    return [result.labels.tolist() for result in results]


EXPECTED = [[2 * i + 1, 2 * i + 2] for i in range(20)]


def test_each_batch_has_its_result_in_order(caller, transport):
    assert firsts(caller.top_k_stream(batches(20), 1)) == EXPECTED
    assert (transport.num_streams, transport.open_streams) == (1, 0)


def test_a_stream_without_batches_has_no_result_and_opens_nothing(caller, transport):
    assert caller.top_k_stream([], 1) == []
    assert transport.num_streams == 0


def test_a_stream_takes_batches_of_every_form(caller):
    given = [query_batch(embeddings=np.array([[7.0]])), ["q8"], query_batch(["q9"])]
    assert firsts(caller.top_k_stream(given, 1)) == [[7], [8], [9]]


def test_options_hold_for_every_batch(caller, fake):
    caller.top_k_stream(batches(3), 4, model="tiny", version=2, label_fields=["key"])
    assert {(r.k, r.model.name, r.model.version) for r in fake.requests} == {(4, "tiny", 2)}


def test_batches_are_taken_only_a_few_ahead_of_the_results(caller, transport):
    taken = []

    def endless() -> Iterator[list[str]]:
        while True:
            taken.append(1)
            yield ["q1"]

    assert len(caller.top_k_stream(endless(), 1, take=5)) == 5
    assert len(taken) < 20
    assert transport.open_streams == 0


def test_a_batch_too_large_for_one_message_is_cut_in_its_turn(caller, fake):
    fake.limits.max_queries_per_call = 3
    given = [["q1"], [f"q{i}" for i in range(2, 9)], ["q9"]]
    assert firsts(caller.top_k_stream(given, 1)) == [[1], [2, 3, 4, 5, 6, 7, 8], [9]]


@pytest.mark.parametrize("code", [8, 14], ids=["overloaded", "unavailable"])
def test_a_batch_that_was_refused_for_now_is_asked_again(caller, transport, code):
    transport.stream_faults[4] = pb.StreamError(code=code, message="not now")
    assert firsts(caller.top_k_stream(batches(20), 1)) == EXPECTED
    assert transport.num_streams == 1


def test_a_wrong_batch_ends_the_iteration_with_its_error(caller, transport):
    transport.stream_faults[4] = pb.StreamError(code=3, message="k: too large", reason="K")
    with pytest.raises(InvalidArgumentError, match="k: too large") as caught:
        caller.top_k_stream(batches(20), 1)
    assert caught.value.reason == "K"
    assert transport.open_streams == 0


def test_a_malformed_batch_ends_the_iteration_with_its_error(caller, transport):
    with pytest.raises(InvalidArgumentError, match=r"texts\[0\]: expected text, got int"):
        caller.top_k_stream([["q1"], [2]], 1)
    assert transport.open_streams == 0


def test_an_error_of_the_callers_own_iterator_comes_through(caller, transport):
    def broken() -> Iterator[list[str]]:
        yield ["q1"]
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        caller.top_k_stream(broken(), 1)
    assert transport.open_streams == 0


def test_batches_under_way_in_a_stream_that_broke_are_asked_again(caller, transport):
    transport.stream_faults[5] = UnavailableError("going away")
    assert firsts(caller.top_k_stream(batches(20), 1)) == EXPECTED
    assert (transport.num_streams, transport.open_streams) == (2, 0)


def test_a_server_that_stays_away_ends_the_iteration(caller, transport, fake):
    transport.stream_faults[0] = UnavailableError("going away")
    fake.script = [lambda _: (_ for _ in ()).throw(refusal("UnavailableError", "still away"))]
    with pytest.raises(UnavailableError, match="still away"):
        caller.top_k_stream(batches(2), 1)


def test_a_model_that_is_not_there_ends_the_iteration(caller, transport):
    transport.stream_faults[0] = pb.StreamError(code=5, message="no model nix")
    with pytest.raises(NotFoundError, match="no model nix"):
        caller.top_k_stream(batches(2), 1)


@pytest.mark.asyncio
async def test_the_asyncio_client_takes_batches_from_an_asynchronous_iterable(transport):
    async def arriving():
        for batch in batches(3):
            yield batch

    async with AsyncClient("fake", transport=AsyncFakeTransport(transport)) as client:
        results = [result async for result in client.top_k_stream(arriving(), 1)]
    assert firsts(results) == EXPECTED[:3]
