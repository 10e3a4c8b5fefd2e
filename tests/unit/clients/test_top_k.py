"""Both clients over a transport without a network."""

from __future__ import annotations

import numpy as np
import pytest

from motherlode.clients import (
    AsyncClient,
    Client,
    Hit,
    InvalidArgumentError,
    NotFoundError,
    Notice,
    TooLargeError,
    VersionChangedError,
)
from tests.support.callers import CALLERS
from tests.support.retrieval import (
    FakeRetrieval,
    FakeTransport,
    fail,
    proceed,
    refusal,
    swap_to,
)


@pytest.fixture
def fake() -> FakeRetrieval:
    return FakeRetrieval()


@pytest.fixture
def transport(fake):
    return FakeTransport(fake)


@pytest.fixture(params=CALLERS)
def caller(request, transport):
    return CALLERS[request.param]("fake", transport)


def texts(num_queries: int) -> list[str]:
    return [f"q{i}" for i in range(1, num_queries + 1)]


def sent(fake: FakeRetrieval) -> list[tuple[int, int]]:
    """Number of queries and version asked, of each request."""
    return [(len(r.text.texts), r.model.version) for r in fake.requests]


def test_a_hit_has_label_key_text_and_score(caller):
    result = caller.top_k(["q7"], 2)
    assert result[0] == [
        Hit(7, "label7", "topic7", 1.0),
        Hit(8, "label8", "topic8", pytest.approx(0.99)),
    ]
    assert (result.model, result.version, result.bundle_digest) == ("tiny", 3, "digest3")
    assert result.round_trip_s > 0


@pytest.mark.parametrize(
    "queries",
    [
        {"queries": ["q7", "q9"]},
        {"embeddings": np.array([[7.0, 1.0], [9.0, 1.0]])},
        {"features": np.array([[7.0, 1.0], [9.0, 1.0]], np.float16)},
        {"sparse": ([0, 2, 3], [7, 8, 9], [1.0, 1.0, 1.0])},
    ],
    ids=lambda queries: next(iter(queries)),
)
def test_every_form_of_query_reaches_the_server(caller, queries):
    assert caller.top_k(k=1, **queries).labels.tolist() == [7, 9]


def test_label_fields_that_were_not_asked_for_are_none(caller):
    result = caller.top_k(["q7"], 1, label_fields=["text"])
    assert result.keys is None
    assert result[0] == [Hit(7, None, "topic7", 1.0)]


def test_a_large_batch_is_cut_and_its_answer_is_as_if_it_was_not(caller, fake):
    whole = caller.top_k(texts(10), 3)
    fake.limits.max_queries_per_call = 4
    fake.requests.clear()
    cut = caller.top_k(texts(10), 3)
    assert [length for length, _ in sent(fake)] == [4, 4, 2]
    assert list(cut) == list(whole)
    assert cut.timings.queue_s == 3 * whole.timings.queue_s


def test_notices_of_a_cut_batch_name_positions_in_the_whole(caller, fake):
    fake.limits.max_queries_per_call = 2
    result = caller.top_k(["q1", "q0", "q2", "q3", "q0"], 1)
    assert result.notices == (Notice("no_known_features", (1, 4)),)
    assert result.counts.tolist() == [1, 0, 1, 1, 0]


def test_later_parts_ask_for_the_version_of_the_first(caller, fake):
    fake.limits.max_queries_per_call = 2
    result = caller.top_k(texts(6), 1)
    assert sent(fake) == [(2, 0), (2, 3), (2, 3)]
    assert result.version == 3


def test_a_reload_between_the_parts_does_not_mix_versions(caller, fake):
    fake.limits.max_queries_per_call = 2
    fake.script = [proceed, swap_to(4)]
    result = caller.top_k(texts(4), 1)
    assert (result.version, result.bundle_digest) == (3, "digest3")
    assert sent(fake) == [(2, 0), (2, 3)]


def test_a_batch_starts_again_if_its_version_is_retired_between_the_parts(caller, fake):
    fake.limits.max_queries_per_call = 2
    fake.script = [proceed, proceed, swap_to(4, retire=True)]
    result = caller.top_k(texts(6), 1)
    assert sent(fake) == [(2, 0), (2, 3), (2, 3), (2, 0), (2, 4), (2, 4)]
    assert result.version == 4
    assert result.labels.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_batch_starts_again_if_a_replica_holds_another_bundle_under_the_number(
    caller, fake, monkeypatch
):
    answers = iter(["a", "b", "a", "a"])
    honest = FakeRetrieval.top_k

    def from_another_replica(self, request):
        response = honest(self, request)
        response.bundle_digest = next(answers)
        return response

    monkeypatch.setattr(FakeRetrieval, "top_k", from_another_replica)
    fake.limits.max_queries_per_call = 2
    assert caller.top_k(texts(4), 1).bundle_digest == "a"
    assert len(fake.requests) == 4


def test_a_version_that_never_stays_is_an_error(caller, fake):
    fake.limits.max_queries_per_call = 1
    fake.script = [swap_to(version, retire=True) for version in range(10, 30)]
    with pytest.raises(VersionChangedError, match="5 attempts"):
        caller.top_k(texts(2), 1)


def test_a_version_that_the_caller_named_is_not_replaced(caller, fake):
    fake.limits.max_queries_per_call = 1
    fake.loaded = {3}
    fake.script = [proceed, swap_to(4, retire=True)]
    with pytest.raises(NotFoundError):
        caller.top_k(texts(2), 1, version=3)
    assert sent(fake) == [(1, 3), (1, 3)]


def test_a_model_that_is_not_there_is_not_asked_twice(caller, fake):
    fake.script = [fail(refusal("NotFoundError", "no model nix"))]
    with pytest.raises(NotFoundError, match="no model nix"):
        caller.top_k(["q1"], 1, model="nix")
    assert len(fake.requests) == 1


def test_an_answer_that_proves_too_large_is_asked_for_in_halves(caller, fake):
    fake.max_answer_bytes = 150
    result = caller.top_k(texts(5), 1)
    assert result.labels.tolist() == [1, 2, 3, 4, 5]
    assert max(length for length, _ in sent(fake)) == 5
    assert min(length for length, _ in sent(fake)) in (1, 2)


def test_limits_that_have_shrunk_are_met_and_asked_for_anew(fake, transport):
    with Client("fake", transport=transport) as client:
        client.top_k(texts(8), 1)
        fake.limits.max_queries_per_call = 3
        assert len(client.top_k(texts(8), 1)) == 8
        assert len(client.top_k(texts(8), 1)) == 8
    assert fake.num_info_calls == 2
    assert [length for length, _ in sent(fake)][-3:] == [3, 3, 2]


def test_one_query_that_is_too_large_is_an_error(caller, fake):
    fake.max_answer_bytes = 10
    with pytest.raises(TooLargeError):
        caller.top_k(texts(3), 1)


def test_an_error_in_a_part_names_the_queries(caller, fake):
    fake.limits.max_queries_per_call = 2
    fake.script = [proceed, fail(InvalidArgumentError("queries[1]: is wrong"))]
    with pytest.raises(InvalidArgumentError) as caught:
        caller.top_k(texts(6), 1)
    assert caught.value.queries == (2, 4)
    assert str(caught.value) == "in queries 2 to 3 of the batch: queries[1]: is wrong"


def test_an_error_in_a_whole_batch_speaks_of_no_part(caller, fake):
    fake.script = [fail(InvalidArgumentError("queries[1]: is wrong"))]
    with pytest.raises(InvalidArgumentError) as caught:
        caller.top_k(texts(6), 1)
    assert str(caught.value) == "queries[1]: is wrong"


def test_limits_are_asked_for_once(fake, transport):
    with Client("fake", transport=transport) as client:
        for _ in range(3):
            client.top_k(texts(4), 1)
    assert fake.num_info_calls == 1


def test_a_malformed_call_sends_nothing(caller, fake):
    with pytest.raises(ValueError, match="expected a list of texts"):
        caller.top_k("q1", 1)
    with pytest.raises(InvalidArgumentError, match="k: expected"):
        caller.top_k(["q1"], 0)
    assert fake.requests == []


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_a_client_without_a_sensible_timeout_is_refused(client, timeout_s):
    with pytest.raises(ValueError, match="timeout_s"):
        client("fake", timeout_s=timeout_s, transport=object())


def test_a_call_without_a_sensible_timeout_is_refused(caller):
    with pytest.raises(ValueError, match="timeout_s"):
        caller.top_k(["q1"], 1, timeout_s=0)


def test_server_info_has_limits_and_models(caller, fake):
    fake.limits.max_k = 77
    info = caller.server_info()
    assert info.limits.max_k == 77
    assert [(model.name, model.version, model.aliases) for model in info.models] == [
        ("tiny", 3, {"stable": 3})
    ]


def test_health_is_asked_of_the_server_or_of_a_model(caller):
    assert caller.health() == "serving"
    assert caller.health("tiny") == "serving"
    assert caller.health("broken") == "not_serving"
    assert caller.health("nix") == "unknown"


def test_leaving_the_context_closes_the_transport(caller, transport):
    caller.server_info()
    assert transport.is_closed
