"""The Open Inference Protocol of one server in this process, asked over a real socket."""

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

from motherlode.core.errors import UnavailableError
from motherlode.core.queries import DenseQueries, TextQueries
from motherlode.core.repository import Repository
from motherlode.inference import open_inference_pb2 as pb
from motherlode.inference import open_inference_pb2_grpc
from tests.support.bundles import WIDTH, publish_dense, publish_tiny
from tests.support.servers import TIMEOUT_S, Barrier, RunningServer, running_server
from tests.support.tensors import Tensor, infer_request, outputs_of, texts, top_of, wanted
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

SERVICE = "inference.GRPCInferenceService"
Code = grpc.StatusCode


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


def stub_of(server: RunningServer) -> Any:
    return open_inference_pb2_grpc.GRPCInferenceServiceStub(server.channel)  # type: ignore[no-untyped-call]


async def infer(server: RunningServer, *tensors: Tensor, **fields: Any) -> pb.ModelInferResponse:
    request = infer_request(*tensors, **fields)
    response: pb.ModelInferResponse = await stub_of(server).ModelInfer(request, timeout=TIMEOUT_S)
    return response


async def failure(call: Any) -> tuple[Any, str, dict[str, Any]]:
    """Code, message and details of the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    found = {}
    for detail in status.details:
        kind = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])
        found[kind.DESCRIPTOR.name] = message = kind()
        detail.Unpack(message)
    return error.code(), error.details() or "", found


async def test_a_text_gets_its_label_with_key_score_and_count(repository: Path) -> None:
    async with running_server(repository) as server:
        response = await infer(server, texts("topic7 filler", "unknown"), k=2, id="a")
        digest = server.current().digest
    outputs = outputs_of(response)
    assert outputs["ids"][0, 0] == 7
    assert outputs["labels"][0, 0] == b"label7"
    assert outputs["counts"].tolist() == [2, 0]
    assert outputs["ids"][1].tolist() == [-1, -1]
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "a")
    assert response.parameters["bundle_digest"].string_param == digest


async def test_a_dense_model_takes_features_and_embeddings(tmp_path: Path) -> None:
    publish_dense(tmp_path)
    features_BF = np.eye(2, 6, dtype=np.float32)
    async with running_server(tmp_path) as server:
        retriever = server.current("dense").retriever
        response = await infer(server, Tensor("features", features_BF), model_name="dense", k=3)
        expected = retriever.top_k(DenseQueries(features_BF), 3)
        embeddings = Tensor("embeddings", retriever.encode(DenseQueries(features_BF)))
        same = await infer(server, embeddings, model_name="dense", k=3)
    assert top_of(response).labels.tolist() == expected.labels.tolist()
    assert top_of(same).scores.tobytes() == top_of(response).scores.tobytes()


async def test_the_server_and_its_models_are_live_and_ready(repository: Path) -> None:
    async with running_server(repository) as server:
        stub = stub_of(server)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        ready = {
            version: (await stub.ModelReady(pb.ModelReadyRequest(name="tiny", version=version)))
            for version in ("", "1", "9", "canary")
        }
        unknown = await stub.ModelReady(pb.ModelReadyRequest(name="other"))
    assert [version for version, answer in ready.items() if answer.ready] == ["", "1"]
    assert not unknown.ready


async def test_a_server_without_models_lives_but_is_not_ready(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        stub = stub_of(server)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready


async def test_a_server_that_starts_or_stops_is_not_ready_and_says_so(repository: Path) -> None:
    async with running_server(repository) as server:
        stub = stub_of(server)
        reception = server.server._reception
        reception.refusal = UnavailableError("the server is starting", reason="STARTING")
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="tiny"))).ready
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="to come"))
        for call in (metadata, infer(server, texts("topic1"))):
            code, _, details = await failure(call)
            assert (code, details["ErrorInfo"].reason) == (Code.UNAVAILABLE, "STARTING")


async def test_metadata_and_configuration_describe_the_same_tensors(repository: Path) -> None:
    async with running_server(repository) as server:
        stub = stub_of(server)
        about = await stub.ServerMetadata(pb.ServerMetadataRequest())
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"))
        answer = await stub.ModelConfig(pb.ModelConfigRequest(name="tiny", version="1"))
    assert about.name == "motherlode"
    assert {"model_configuration", "statistics"} <= set(about.extensions)
    assert (metadata.name, list(metadata.versions)) == ("tiny", ["1"])
    inputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs}
    assert inputs == {
        "text": ("BYTES", [-1]),
        "indptr": ("INT64", [-1]),
        "indices": ("INT64", [-1]),
        "values": ("FP32", [-1]),
        "embeddings": ("FP32", [-1, WIDTH]),
        "k": ("INT32", [1]),
    }
    outputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in metadata.outputs}
    assert outputs == {
        "ids": ("INT64", [-1, -1]),
        "scores": ("FP32", [-1, -1]),
        "labels": ("BYTES", [-1, -1]),
        "counts": ("INT32", [-1]),
    }
    config = answer.config
    assert (config.name, config.max_batch_size) == ("tiny", 0)
    assert {one.name: list(one.dims) for one in config.input} == {
        name: shape for name, (_, shape) in inputs.items()
    }
    assert [one.name for one in config.output] == list(outputs)
    assert all(one.optional for one in config.input)
    assert config.parameters["max_k"].string_value == "50"


async def test_the_only_kind_of_query_is_not_optional(tmp_path: Path) -> None:
    publish_dense(tmp_path)
    async with running_server(tmp_path) as server:
        server.current("dense").retriever.query_kinds = ("features",)
        answer = await stub_of(server).ModelConfig(pb.ModelConfigRequest(name="dense"))
    assert {one.name: one.optional for one in answer.config.input} == {
        "features": False,
        "k": True,
    }


async def test_versions_are_chosen_by_digits_or_alias(repository: Path) -> None:
    publish_tiny(repository, seed=1)
    Repository(repository).set_alias("tiny", "stable", 2)
    async with running_server(repository) as server:
        for version in ("", "2", "stable"):
            response = await infer(server, texts("topic1"), model_version=version)
            assert response.model_version == "2"
        code, message, details = await failure(infer(server, texts("topic1"), model_version="1"))
    assert (code, details["ErrorInfo"].reason) == (Code.NOT_FOUND, "VERSION_NOT_FOUND")
    assert "tiny@2" in message


async def test_the_index_names_loaded_versions_and_models_without_any(repository: Path) -> None:
    publish_tiny(repository, "broken")
    (Repository(repository).path_of("broken", 1) / "encoder.safetensors").write_bytes(b"")
    async with running_server(repository) as server:
        stub = stub_of(server)
        everything = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
        ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
        named = pb.RepositoryIndexRequest(repository_name="other")
        code, message, _ = await failure(stub.RepositoryIndex(named))
    broken, tiny = everything.models
    assert (broken.name, broken.version, broken.state) == ("broken", "", "UNAVAILABLE")
    assert "encoder.safetensors" in broken.reason
    assert (tiny.name, tiny.version, tiny.state, tiny.reason) == ("tiny", "1", "READY", "")
    assert list(ready.models) == [tiny]
    assert code is Code.INVALID_ARGUMENT
    assert message.startswith("repository_name: ")


async def test_statistics_count_both_protocols_queries_batches_and_failures(
    repository: Path,
) -> None:
    async with running_server(repository) as server:
        stub = stub_of(server)
        [before] = (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
        await infer(server, texts("topic1", "topic2"))
        await server.ask("topic3")
        await failure(infer(server, texts("topic1"), k=0))
        statistics = server.current().statistics
        await until(lambda: statistics.num_batches == 2)
        request = pb.ModelStatisticsRequest(name="tiny", version="1")
        [after] = (await stub.ModelStatistics(request)).model_stats
        request = pb.ModelStatisticsRequest(name="tiny")
        assert list((await stub.ModelStatistics(request)).model_stats) == [after]
        labels = {"model": "tiny", "version": "1", "method": "ModelInfer"}
        assert server.metric("requests_total", code="OK", **labels) == 1
        assert server.metric("requests_total", code="INVALID_ARGUMENT", **labels) == 1
    assert (before.inference_count, before.execution_count, before.last_inference) == (0, 0, 0)
    assert (after.inference_count, after.execution_count) == (3, 2)
    assert after.last_inference > 0
    times = after.inference_stats
    assert (times.success.count, times.fail.count) == (2, 1)
    stages = (times.queue, times.compute_input, times.compute_infer, times.compute_output)
    assert [stage.count for stage in stages] == [2] * 4
    assert 0 < sum(stage.ns for stage in stages) <= times.success.ns


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"model_name": "other"}, Code.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"model_version": "canary"}, Code.NOT_FOUND, "ALIAS_NOT_FOUND"),
        ({"model_version": "9" * 5000}, Code.NOT_FOUND, "ALIAS_NOT_FOUND"),
        ({"k": 51}, Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        ({"outputs": wanted("x" * 100_000)}, Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        (
            {"parameters": {"x" * 100_000: pb.InferParameter()}},
            Code.INVALID_ARGUMENT,
            "INVALID_ARGUMENT",
        ),
    ],
    ids=["model", "alias", "digits", "k", "output", "parameter"],
)
async def test_a_wrong_request_gets_the_status_that_it_gets_elsewhere(
    repository: Path, fields: dict[str, Any], code: grpc.StatusCode, reason: str
) -> None:
    async with running_server(repository) as server:
        actual, _, details = await failure(infer(server, texts("topic1"), **fields))
        assert outputs_of(await infer(server, texts("topic1")))["ids"][0, 0] == 1
    assert (actual, details["ErrorInfo"].reason) == (code, reason)


async def test_inputs_of_any_name_and_number_are_refused_with_a_short_error(
    repository: Path,
) -> None:
    async with running_server(repository) as server:
        for tensors in (
            [texts("a", name="x" * 100_000)],
            [texts("a", name=str(i)) for i in range(5000)],
        ):
            code, _, details = await failure(infer(server, *tensors))
            assert code is Code.INVALID_ARGUMENT
            assert details["BadRequest"].field_violations[0].field == "inputs"


async def test_what_only_the_search_can_find_wrong_is_named_as_an_input(tmp_path: Path) -> None:
    publish_dense(tmp_path)
    huge = Tensor("features", np.full((1, 6), 3e38, np.float32))
    async with running_server(tmp_path) as server:
        code, _, details = await failure(infer(server, huge, model_name="dense"))
    assert code is Code.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field == "inputs.features"


async def test_too_many_queries_are_too_large_and_no_retry_is_advised(repository: Path) -> None:
    async with running_server(repository, max_queries_per_call=2) as server:
        code, message, details = await failure(infer(server, texts("a", "b", "c")))
    assert (code, details["ErrorInfo"].reason) == (Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")
    assert message.startswith("inputs: expected at most 2 queries a call, got 3")
    assert "RetryInfo" not in details


async def test_a_full_queue_refuses_and_a_late_call_is_dropped_in_every_protocol(
    repository: Path,
) -> None:
    settings = {"max_queued_queries": 2, "max_queries_per_call": 2}
    async with running_server(repository, **settings) as server:
        with Barrier(server.current().retriever) as barrier:
            first = asyncio.create_task(server.ask("topic1"))
            await asyncio.to_thread(barrier.wait_entered)
            stayed = asyncio.create_task(infer(server, texts("topic2"), k=3))
            late = stub_of(server).ModelInfer(infer_request(texts("topic3"), k=3), timeout=2.0)
            await until(lambda: server.metric("queue_depth") == 2)
            code, _, details = await failure(infer(server, texts("topic4")))
            with pytest.raises(grpc.aio.AioRpcError) as expired:
                await late
            await until(lambda: server.metric("inflight_requests") == 2)
            barrier.release()
            await first
            assert outputs_of(await stayed)["ids"][0, 0] == 2
    assert (code, details["ErrorInfo"].reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert details["RetryInfo"].retry_delay.ToNanoseconds() > 0
    assert expired.value.code() is Code.DEADLINE_EXCEEDED
    assert barrier.sizes == [1, 1]


async def test_calls_of_both_protocols_share_a_batch(repository: Path) -> None:
    async with running_server(repository) as server:
        with Barrier(server.current().retriever) as barrier:
            first = asyncio.create_task(server.ask("topic1"))
            await asyncio.to_thread(barrier.wait_entered)
            native = asyncio.create_task(server.ask("topic2", k=3))
            tensors = asyncio.create_task(infer(server, texts("topic3"), k=3))
            await until(lambda: server.metric("queue_depth") == 2)
            barrier.release()
            await first
            assert (await native).labels[0] == 2
            assert outputs_of(await tensors)["ids"][0, 0] == 3
    assert barrier.sizes == [1, 2]


async def test_an_unforeseen_failure_is_internal_without_detail(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    async with running_server(repository) as server:
        monkeypatch.setattr(server.current().retriever, "top_k", fail)
        code, message, _ = await failure(infer(server, texts("topic1")))
    assert code is Code.INTERNAL
    assert "secret" not in message


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("SystemSharedMemoryRegister", "not from shared memory"),
        ("TraceSetting", "do not change while it runs"),
    ],
)
async def test_methods_that_are_not_offered_say_why(
    repository: Path, method: str, reason: str
) -> None:
    async with running_server(repository) as server:
        code, message, details = await failure(
            server.channel.unary_unary(f"/{SERVICE}/{method}")(b"")
        )
    assert (code, details["ErrorInfo"].reason) == (Code.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert message.startswith(f"{method} is not offered: ")
    assert reason in message


async def test_streams_are_not_offered_and_the_error_names_what_is(repository: Path) -> None:
    async with running_server(repository) as server:
        call = server.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")()
        code, message, _ = await failure(call.read())
    assert code is Code.UNIMPLEMENTED
    assert "TopKStream" in message


async def test_health_and_reflection_know_the_service(repository: Path) -> None:
    async def ask() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with running_server(repository) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        status = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        [answer] = [answer async for answer in stub.ServerReflectionInfo(ask())]
    assert status.status == health_pb2.HealthCheckResponse.SERVING
    assert SERVICE in {service.name for service in answer.list_services_response.service}


async def test_a_ranked_model_takes_texts_and_refuses_embeddings(tmp_path: Path) -> None:
    publish_tiny(tmp_path, ranker_kind="tree_correction")
    async with running_server(tmp_path) as server:
        response = await infer(server, texts("topic7 filler"), k=3)
        expected = server.current().retriever.top_k(TextQueries(["topic7 filler"]), 3)
        ones = Tensor("embeddings", np.ones((1, WIDTH), np.float32))
        code, message, _ = await failure(infer(server, ones))
    assert top_of(response).labels.tolist() == expected.labels.tolist()
    assert code is Code.INVALID_ARGUMENT
    assert "names of indices, indptr, text, values, k" in message
