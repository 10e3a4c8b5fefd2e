"""One server in this process, asked over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from motherlode.core.queries import TextQueries
from motherlode.core.repository import Repository
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import WIDTH, publish_tiny
from tests.support.servers import Barrier, RunningServer, running_server, text_request
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The error's details by the name of their type."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    found = {}
    for detail in status.details:
        kind = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])
        found[kind.DESCRIPTOR.name] = message = kind()
        detail.Unpack(message)
    return found


async def health(server: RunningServer, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(server.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_a_text_gets_its_label_with_version_digest_and_times(repository: Path) -> None:
    async with running_server(repository) as server:
        response = await server.ask("topic7 filler", "other topic3")
        served = server.current()
    assert list(response.row_counts) == [3, 3]
    assert (response.labels[0], response.labels[3]) == (7, 3)
    assert list(response.scores[:3]) == sorted(response.scores[:3], reverse=True)
    assert (response.model, response.version) == ("tiny", 1)
    assert response.bundle_digest == served.digest
    assert response.timings.encode_s > 0
    assert response.timings.search_s > 0
    assert not response.notices


async def test_the_answer_is_the_retrievers_bit_by_bit(repository: Path) -> None:
    texts = [f"topic{i} filler" for i in range(10)]
    async with running_server(repository) as server:
        responses = await asyncio.gather(*(server.ask(text, k=5) for text in texts))
        top = server.current().retriever.top_k(TextQueries(texts), 5)
    assert [label for one in responses for label in one.labels] == top.labels.tolist()
    scores = np.array([score for one in responses for score in one.scores], np.float32)
    assert np.array_equal(scores, top.scores)


async def test_embeddings_find_the_label_that_they_point_to(repository: Path) -> None:
    async with running_server(repository) as server:
        embeddings_BD = server.current().retriever.encode(TextQueries(["topic4", "topic9"]))
        data = embeddings_BD.astype("<f4").tobytes()
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2, WIDTH], data=data)
        response = await server.stub.TopK(pb.TopKRequest(embeddings=tensor, k=1))
    assert list(response.labels) == [4, 9]


async def test_sparse_features_give_what_their_text_gives(repository: Path) -> None:
    async with running_server(repository) as server:
        features: Any = server.current().retriever.path.featurizer.transform(
            TextQueries(["topic4 more"])
        )
        batch = pb.SparseBatch(
            indptr=features.indptr.astype("<i8").tobytes(),
            indices=features.indices.astype("<i8").tobytes(),
            values=features.values.astype("<f4").tobytes(),
        )
        sparse = await server.stub.TopK(pb.TopKRequest(sparse=batch, k=3))
        text = await server.ask("topic4 more")
    assert (sparse.labels, sparse.scores) == (text.labels, text.scores)


async def test_keys_and_texts_of_labels_come_on_request(repository: Path) -> None:
    async with running_server(repository) as server:
        both = await server.ask("topic7", k=1, label_fields=[pb.LABEL_FIELD_TEXT, 1])
        none = await server.ask("topic7", k=1)
    assert (list(both.label_keys), list(both.label_texts)) == (["label7"], ["topic7"])
    assert not none.label_keys
    assert not none.label_texts


async def test_a_filter_allows_or_denies_labels(repository: Path) -> None:
    async with running_server(repository) as server:
        allowed = await server.ask(
            "topic7", filter=pb.LabelFilter(allow=["label1", "label2", "label9"])
        )
        denied = await server.ask("topic7", k=49, filter=pb.LabelFilter(deny=["label7"]))
    assert sorted(allowed.labels) == [1, 2, 9]
    assert sorted(denied.labels) == [i for i in range(50) if i != 7]


async def test_fewer_hits_than_asked_for_are_noticed(repository: Path) -> None:
    async with running_server(repository) as server:
        unknown = await server.ask("topic7", "nothing known", "")
        filtered = await server.ask("topic7", filter=pb.LabelFilter(allow=["label1"]))
        both = await server.ask("zzz", "topic7", filter=pb.LabelFilter(allow=["label1"]))
    few, no_features = pb.NOTICE_KIND_FEWER_THAN_K, pb.NOTICE_KIND_NO_KNOWN_FEATURES
    assert list(unknown.row_counts) == [3, 0, 0]
    assert {n.kind: list(n.queries) for n in unknown.notices} == {few: [1, 2], no_features: [1, 2]}
    assert {n.kind: list(n.queries) for n in filtered.notices} == {few: [0]}
    assert {n.kind: list(n.queries) for n in both.notices} == {few: [0, 1], no_features: [0]}


WRONG = [
    ({"k": 0}, "k"),
    ({"k": 51}, "k"),
    ({"text": pb.TextBatch()}, "queries"),
    ({"text": pb.TextBatch(texts=["a" * 1_000_000])}, "queries.text.texts[0]"),
    (
        {"embeddings": pb.Tensor(dtype=1, shape=[1, 3], data=bytes(12))},
        "queries.embeddings.shape",
    ),
    (
        {"embeddings": pb.Tensor(dtype=1, shape=[1, WIDTH], data=bytes(3))},
        "queries.embeddings.data",
    ),
    (
        {"embeddings": pb.Tensor(dtype=1, shape=[1, WIDTH], data=b"\xff" * 4 * WIDTH)},
        "queries.embeddings[0, 0]",
    ),
    ({"filter": pb.LabelFilter(allow=["label1"], deny=["label2"])}, "filter"),
    ({"filter": pb.LabelFilter(allow=["nobody"])}, "filter.allow[0]"),
]


@pytest.mark.parametrize(
    ("fields", "field"), WRONG, ids=[f"{row[1]}-{i}" for i, row in enumerate(WRONG)]
)
async def test_a_wrong_request_names_its_field_and_the_server_goes_on(
    repository: Path, fields: dict[str, Any], field: str
) -> None:
    request = text_request("topic1")
    for name, value in fields.items():
        request.ClearField(name)
        request.MergeFrom(pb.TopKRequest(**{name: value}))
    async with running_server(repository) as server:
        error = await failure(server.stub.TopK(request))
        assert (await server.ask("topic1", k=1)).labels == [1]
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = details(error)
    assert found["ErrorInfo"].reason == "INVALID_ARGUMENT"
    assert [v.field for v in found["BadRequest"].field_violations] == [field]


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        (pb.ModelRef(name="other"), "MODEL_NOT_FOUND"),
        (pb.ModelRef(name="tiny", version=9), "VERSION_NOT_FOUND"),
        (pb.ModelRef(alias="canary"), "ALIAS_NOT_FOUND"),
    ],
)
async def test_an_unknown_model_version_or_alias_is_not_found(
    repository: Path, ref: pb.ModelRef, reason: str
) -> None:
    async with running_server(repository) as server:
        error = await failure(server.stub.TopK(text_request("topic1", model=ref)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert details(error)["ErrorInfo"].reason == reason
    assert "tiny" in (error.details() or "")


async def test_too_many_queries_are_too_large_and_no_retry_is_advised(repository: Path) -> None:
    async with running_server(repository, max_queries_per_call=2) as server:
        error = await failure(server.stub.TopK(text_request("a", "b", "c")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(error)
    assert found["ErrorInfo"].reason == "REQUEST_TOO_LARGE"
    assert "RetryInfo" not in found


async def test_an_answer_that_turns_out_too_large_is_refused_with_the_limit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(repository, max_message_bytes=1024) as server:
        labels = server.current().retriever.labels
        monkeypatch.setattr(labels, "texts_of", lambda rows: ["a long text " * 50 for _ in rows])
        error = await failure(
            server.stub.TopK(text_request("topic1", label_fields=[pb.LABEL_FIELD_TEXT]))
        )
    assert details(error)["ErrorInfo"].reason == "REQUEST_TOO_LARGE"


async def test_an_unforeseen_failure_is_internal_without_detail(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    async with running_server(repository) as server:
        monkeypatch.setattr(server.current().retriever, "top_k", fail)
        error = await failure(server.stub.TopK(text_request("topic1")))
        assert (
            server.metric(
                "requests_total", model="tiny", version="1", method="TopK", code="INTERNAL"
            )
            == 1
        )
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error)


async def test_several_models_answer_by_name(repository: Path) -> None:
    publish_tiny(repository, "second", seed=1, num_labels=20)
    async with running_server(repository) as server:
        first = await server.ask("topic7", model=pb.ModelRef(name="tiny"))
        second = await server.ask("topic7", model=pb.ModelRef(name="second"))
        error = await failure(server.stub.TopK(text_request("topic7")))
    assert (first.model, second.model) == ("tiny", "second")
    assert first.bundle_digest != second.bundle_digest
    assert details(error)["BadRequest"].field_violations[0].field == "model.name"


async def test_only_the_models_named_in_the_settings_are_served(repository: Path) -> None:
    publish_tiny(repository, "second")
    async with running_server(repository, models="second") as server:
        assert [model.name for model in (await server.info()).models] == ["second"]


async def test_an_alias_and_a_version_may_be_named(repository: Path) -> None:
    Repository(repository).set_alias("tiny", "stable", 1)
    async with running_server(repository) as server:
        for choice in ({"alias": "stable"}, {"version": 1}):
            ref = pb.ModelRef(name="tiny", **choice)
            assert (await server.ask("topic7", model=ref)).version == 1


async def test_the_server_tells_its_limits_and_models(repository: Path) -> None:
    Repository(repository).set_alias("tiny", "stable", 1)
    async with running_server(repository, max_k=7) as server:
        info = await server.info()
        digest = server.current().digest
    assert info.server_version
    assert (info.limits.max_k, info.limits.max_queries_per_call) == (7, 1024)
    assert info.limits.max_message_bytes == 16 * 2**20
    [model] = info.models
    assert (model.name, model.version, model.bundle_digest) == ("tiny", 1, digest)
    assert (model.num_labels, model.embedding_width) == (50, WIDTH)
    assert list(model.query_kinds) == ["text", "sparse", "embeddings"]
    assert dict(model.aliases) == {"stable": 1}
    assert list(model.loaded_versions) == [1]
    assert model.score_meaning == "cosine of query and label"
    assert model.load_error == ""


async def test_a_ranked_model_times_its_ranking_and_takes_no_embeddings(tmp_path: Path) -> None:
    publish_tiny(tmp_path, ranker_kind="tree_correction")
    async with running_server(tmp_path) as server:
        response = await server.ask("topic7 filler", "other topic3")
        [model] = (await server.info()).models
        tensor = pb.Tensor(
            dtype=pb.DATA_TYPE_FLOAT32, shape=[1, WIDTH], data=np.ones(WIDTH, "<f4").tobytes()
        )
        error = await failure(server.stub.TopK(pb.TopKRequest(embeddings=tensor, k=1)))
        series = {"model": "tiny", "version": "1", "stage": "rank"}
        await until(lambda: (server.metric("stage_duration_seconds_sum", **series) or 0.0) > 0.0)
    assert (response.labels[0], response.labels[3]) == (7, 3)
    assert response.timings.rank_s > 0
    assert list(model.query_kinds) == ["text", "sparse"]
    assert "log p_n(y|x)" in model.score_meaning
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "whose features the tree_correction needs" in str(error.details())


async def test_health_is_told_of_the_process_the_service_and_each_model(repository: Path) -> None:
    async with running_server(repository) as server:
        for service in ("", "motherlode.v1.RetrievalService", "model:tiny"):
            assert await health(server, service) == SERVING
        error = await failure(health(server, "model:other"))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_without_models_lives_but_is_not_ready(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert await health(server, "") == SERVING
        assert await health(server, "motherlode.v1.RetrievalService") == NOT_SERVING
        error = await failure(server.stub.TopK(text_request("topic1")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        publish_tiny(tmp_path)
        await server.server.watcher.scan()
        assert await health(server, "motherlode.v1.RetrievalService") == SERVING
        assert (await server.ask("topic1", k=1)).labels == [1]


async def test_services_are_listed_by_reflection(repository: Path) -> None:
    async def ask() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with running_server(repository) as server:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        [answer] = [answer async for answer in stub.ServerReflectionInfo(ask())]
    names = {service.name for service in answer.list_services_response.service}
    assert {"motherlode.v1.RetrievalService", "grpc.health.v1.Health"} <= names


async def test_a_full_queue_refuses_with_a_time_to_retry(repository: Path) -> None:
    settings = {"max_queued_queries": 2, "max_queries_per_call": 2}
    async with running_server(repository, **settings) as server:
        with Barrier(server.current().retriever) as barrier:
            calls = [asyncio.create_task(server.ask("topic1"))]
            await asyncio.to_thread(barrier.wait_entered)
            calls.append(asyncio.create_task(server.ask("topic2", "topic3")))
            await until(lambda: server.metric("queue_depth") == 2)
            error = await failure(server.stub.TopK(text_request("topic4")))
            barrier.release()
            answers = await asyncio.gather(*calls)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(error)
    assert found["ErrorInfo"].reason == "QUEUE_FULL"
    assert found["RetryInfo"].retry_delay.ToNanoseconds() > 0
    assert [answer.labels[0] for answer in answers] == [1, 2]


async def test_expired_and_cancelled_calls_do_not_disturb_their_batch_mates(
    repository: Path,
) -> None:
    async with running_server(repository) as server:
        with Barrier(server.current().retriever) as barrier:
            first = asyncio.create_task(server.ask("topic1"))
            await asyncio.to_thread(barrier.wait_entered)
            late = server.stub.TopK(text_request("topic2"), timeout=2.0)
            left = server.stub.TopK(text_request("topic3"))
            stayed = asyncio.create_task(server.ask("topic4"))
            await until(lambda: server.metric("queue_depth") == 3)
            left.cancel()
            assert (await failure(late)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            labels = {"model": "tiny", "version": "1", "method": "TopK"}
            await until(lambda: server.metric("inflight_requests") == 2)
            barrier.release()
            answers = await asyncio.gather(first, stayed)
        assert server.metric("requests_total", code="CANCELLED", **labels) == 1
        assert server.metric("requests_total", code="DEADLINE_EXCEEDED", **labels) == 1
    assert [answer.labels[0] for answer in answers] == [1, 4]
    # The two that nobody waited for never ran.
    assert barrier.sizes == [1, 1]
