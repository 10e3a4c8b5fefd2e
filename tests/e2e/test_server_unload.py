"""Models that operators let go and load again, by either service of the admin port."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from motherlode.clients import (
    AdminClient,
    ClientError,
    NotFoundError,
    RefusedError,
    UnsupportedError,
)
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.inference import open_inference_pb2 as pb
from motherlode.inference import open_inference_pb2_grpc
from motherlode.server.gate import warm_up
from motherlode.v1 import retrieval_pb2
from tests.support.admin import operate
from tests.support.bundles import forge_manifest, publish_tiny
from tests.support.servers import TIMEOUT_S, Barrier, running_server
from tests.support.tensors import infer_request, outputs_of, texts
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

Parameter = pb.ModelRepositoryParameter


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


@asynccontextmanager
async def inference_of(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def unload_request(model: str = "tiny") -> pb.RepositoryModelUnloadRequest:
    """As tritonclient sends it."""
    request = pb.RepositoryModelUnloadRequest(model_name=model)
    request.parameters["unload_dependents"].bool_param = False
    return request


def load_request(
    model: str = "tiny", **parameters: pb.ModelRepositoryParameter
) -> pb.RepositoryModelLoadRequest:
    return pb.RepositoryModelLoadRequest(model_name=model, parameters=parameters)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def index_of(stub: Any) -> list[tuple[str, str, str, str]]:
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    return [(one.name, one.version, one.state, one.reason) for one in index.models]


def spoil(repository: Path, version: int) -> None:
    """Gives a version the golden answers of another."""
    folder = Repository(repository).path_of("tiny", version)
    shutil.copy(folder.parent / "000001" / "golden.arrow", folder)
    forge_manifest(folder)


async def test_a_client_of_triton_unloads_and_loads_over_the_admin_port(repository: Path) -> None:
    async with (
        running_server(repository) as server,
        inference_of(server.readiness.admin) as stub,
    ):
        assert await index_of(stub) == [("tiny", "1", "READY", "")]
        await stub.RepositoryModelUnload(unload_request(), timeout=TIMEOUT_S)
        [(name, version, state, reason)] = await index_of(stub)
        assert (name, version, state) == ("tiny", "", "UNAVAILABLE")
        assert reason.startswith("unloaded")
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="tiny"))).ready
        publish_tiny(repository, seed=1)
        await stub.RepositoryModelLoad(load_request(), timeout=TIMEOUT_S)
        assert await index_of(stub) == [("tiny", "2", "READY", "")]
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="tiny"))).ready
        answer = await stub.ModelInfer(infer_request(texts("topic7")), timeout=TIMEOUT_S)
        assert outputs_of(answer)["ids"][0, 0] == 7
        about = await stub.ServerMetadata(pb.ServerMetadataRequest())
    assert "model_repository" in about.extensions


async def test_what_is_unloaded_refuses_calls_by_name_and_leaves_memory(repository: Path) -> None:
    publish_tiny(repository, "other")
    async with running_server(repository) as server:
        gone = weakref.ref(server.current().retriever)
        status = await operate(server, lambda admin: admin.unload_model("tiny"))
        assert (status.is_unloaded, status.serving_version) == (True, 0)
        model = retrieval_pb2.ModelRef(name="tiny")
        pinned = retrieval_pb2.ModelRef(name="tiny", version=1)
        for ref in (model, pinned):
            error = await refused(server.ask("topic7", model=ref))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert b"MODEL_UNLOADED" in dict(error.trailing_metadata())["grpc-status-details-bin"]
            assert "model tiny was unloaded by an operator" in (error.details() or "")
        assert (await server.ask("topic7", model=retrieval_pb2.ModelRef(name="other"))).version == 1
        await server.server.watcher.wait_retired()
        gc.collect()
        assert gone() is None
        counts = {state: server.metric("models", state=state) for state in ("serving", "failing")}
        assert (counts, server.metric("models", state="unloaded")) == (
            {"serving": 1, "failing": 0},
            1,
        )
        assert server.metric("queries_total", model="tiny", version="1") is None
        health = health_pb2_grpc.HealthStub(server.channel)
        for name, expected in (("model:tiny", 2), ("model:other", 1)):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == expected
        assert (await server.info()).models[1].load_error.startswith("unloaded")


async def test_calls_under_way_are_answered_while_their_model_is_unloaded(repository: Path) -> None:
    async with running_server(repository) as server:
        with Barrier(server.current().retriever) as barrier:
            early = asyncio.create_task(server.ask("topic7"))
            await asyncio.to_thread(barrier.wait_entered)
            await operate(server, AdminClient.unload_model)
            barrier.release()
            assert (await early).labels[0] == 7


async def test_no_look_at_the_repository_brings_it_back(repository: Path) -> None:
    async with running_server(repository) as server:
        await operate(server, AdminClient.unload_model)
        publish_tiny(repository, seed=1)
        Repository(repository).set_alias("tiny", "canary", 1)
        for _ in range(2):
            await server.server.watcher.scan()
        [model] = await operate(server, AdminClient.list_models)
        assert [one.state for one in model.versions] == ["start", "start"]
        assert (model.is_unloaded, model.aliases) == (True, {"canary": 1})
        loaded = await operate(server, AdminClient.load_model)
        assert (loaded.is_unloaded, loaded.serving_version, loaded.load_error) == (False, 2, "")
    async with running_server(repository) as server:
        assert server.current().version == 2


async def test_a_model_that_left_the_repository_and_came_back_serves(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "tiny"
    async with running_server(repository) as server:
        await operate(server, AdminClient.unload_model)
        (repository / "tiny").rename(elsewhere)
        await server.server.watcher.scan()
        elsewhere.rename(repository / "tiny")
        await server.server.watcher.scan()
        assert server.current().version == 1


@pytest.mark.parametrize("policy", ["auto", "drain"])
async def test_what_was_being_loaded_does_not_stay(
    repository: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    entered, released = threading.Event(), threading.Event()

    def held(retriever: Retriever, max_batch: int) -> float:
        entered.set()
        assert released.wait(TIMEOUT_S)
        return warm_up(retriever, max_batch)

    async with running_server(repository, reload_policy=policy) as server:
        publish_tiny(repository, seed=1)
        monkeypatch.setattr("motherlode.server.intake.warm_up", held)
        scanning = asyncio.create_task(server.server.watcher.scan())
        await asyncio.to_thread(entered.wait)
        await operate(server, AdminClient.unload_model)
        released.set()
        await scanning
        slot = server.server.catalog.find("tiny")
        assert (slot.loaded, slot.is_unloaded) == ((), True)
        assert slot.load_error.startswith("unloaded")


async def test_an_unload_ends_a_drain_that_waits(repository: Path) -> None:
    settings = {"reload_policy": "drain", "drain_grace_s": TIMEOUT_S}
    async with running_server(repository, **settings) as server:
        slot = server.server.catalog.find("tiny")
        with Barrier(server.current().retriever) as barrier:
            early = asyncio.create_task(server.ask("topic7"))
            await asyncio.to_thread(barrier.wait_entered)
            publish_tiny(repository, seed=1)
            scanning = asyncio.create_task(server.server.watcher.scan())
            await until(lambda: slot.is_draining)
            await operate(server, AdminClient.unload_model)
            await scanning
            assert (slot.loaded, slot.is_draining) == ((), False)
            barrier.release()
            assert (await early).version == 1


async def test_aliases_of_what_is_unloaded_say_what_is_to_serve(repository: Path) -> None:
    publish_tiny(repository, seed=1)
    async with running_server(repository) as server:
        await operate(server, AdminClient.unload_model)
        model = await operate(server, lambda admin: admin.set_alias("stable", 1))
        assert (model.serving_version, model.aliases) == (0, {"stable": 1})
        for ask in (AdminClient.roll_back, lambda admin: admin.load_version(2)):
            with pytest.raises(UnsupportedError, match="model tiny is unloaded; load it first"):
                await operate(server, ask)
        with pytest.raises(UnsupportedError, match="no serving version"):
            await operate(server, lambda admin: admin.set_canary(2, 5))
        assert (await operate(server, AdminClient.load_model)).serving_version == 1


async def test_a_load_says_why_what_should_serve_does_not(repository: Path) -> None:
    spoil(repository, publish_tiny(repository, seed=1))
    async with (
        running_server(repository) as server,
        inference_of(server.readiness.admin) as stub,
    ):
        await operate(server, AdminClient.unload_model)
        with pytest.raises(RefusedError, match="tiny@2: gate: ") as caught:
            await operate(server, AdminClient.load_model)
        assert (caught.value.reason, server.current().version) == ("GATE_REFUSED", 1)
        error = await refused(stub.RepositoryModelLoad(load_request()))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        (repository / "tiny" / "aliases.json").write_text("{", encoding="utf-8")
        with pytest.raises(UnsupportedError, match=r"aliases\.json") as unreadable:
            await operate(server, AdminClient.load_model)
        assert unreadable.value.reason == "REPOSITORY_UNUSABLE"


async def test_a_model_that_was_just_copied_in_is_loaded_by_its_name(repository: Path) -> None:
    async with running_server(repository, models="tiny,second") as server:
        publish_tiny(repository, "second")
        publish_tiny(repository, "third")
        assert (await operate(server, lambda a: a.load_model("second"))).serving_version == 1
        (repository / "tiny").rename(repository / "elsewhere")
        for name in ("third", "nowhere", "tiny"):
            with pytest.raises(NotFoundError, match=f"no model '{name}'; there is second, tiny"):
                await operate(server, lambda admin, name=name: admin.load_model(name))


async def test_unknown_models_are_not_found(repository: Path) -> None:
    async with (
        running_server(repository) as server,
        inference_of(server.readiness.admin) as stub,
    ):
        for call in (
            stub.RepositoryModelLoad(load_request("other")),
            stub.RepositoryModelUnload(unload_request("other")),
        ):
            error = await refused(call)
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert error.details() == "no model 'other'; there is tiny"
        with pytest.raises(NotFoundError, match="no model 'other'"):
            await operate(server, lambda admin: admin.unload_model("other"))


@pytest.mark.parametrize(
    ("method", "request_", "message"),
    [
        (
            "RepositoryModelLoad",
            load_request(config=Parameter(string_param="{}")),
            "parameters: expected none but version: a model is what was published, got 'config'",
        ),
        (
            "RepositoryModelLoad",
            load_request(**{"file:1/model.onnx": Parameter(bytes_param=b"x")}),
            "got 'file:1/model.onnx'",
        ),
        (
            "RepositoryModelLoad",
            load_request(version=Parameter(string_param="2")),
            "parameters.version: expected int64_param, got 'string_param'",
        ),
        (
            "RepositoryModelUnload",
            pb.RepositoryModelUnloadRequest(
                model_name="tiny", parameters={"force": Parameter(bool_param=True)}
            ),
            "parameters: expected none but unload_dependents",
        ),
        (
            "RepositoryModelUnload",
            pb.RepositoryModelUnloadRequest(repository_name="other", model_name="tiny"),
            "repository_name: expected no name, as there is one repository, got 'other'",
        ),
    ],
    ids=["config", "file", "version", "unload", "repository"],
)
async def test_parameters_that_would_have_no_effect_are_named(
    repository: Path, method: str, request_: Any, message: str
) -> None:
    async with (
        running_server(repository) as server,
        inference_of(server.readiness.admin) as stub,
    ):
        error = await refused(getattr(stub, method)(request_))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert message in (error.details() or "")
        assert server.current().version == 1


async def test_a_version_named_in_a_load_is_loaded_beside_what_serves(repository: Path) -> None:
    publish_tiny(repository, seed=1)
    async with (
        running_server(repository) as server,
        inference_of(server.readiness.admin) as stub,
    ):
        await stub.RepositoryModelUnload(unload_request())
        await stub.RepositoryModelLoad(load_request(version=Parameter(int64_param=1)))
        assert [one.version for one in server.server.catalog.find("tiny").loaded] == [2, 1]
        error = await refused(
            stub.RepositoryModelLoad(load_request(version=Parameter(int64_param=9)))
        )
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_name_may_be_left_out_where_there_is_one_model(repository: Path) -> None:
    async with (
        running_server(repository) as server,
        inference_of(server.readiness.admin) as stub,
    ):
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest())
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest())
        assert server.current().version == 1
        publish_tiny(repository, "other")
        await server.server.watcher.scan()
        error = await refused(stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest()))
        assert error.details() == "model_name: expected one of other, tiny, got ''"
        with pytest.raises(ClientError, match="expected one of other, tiny"):
            await operate(server, AdminClient.unload_model)


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
async def test_the_public_port_names_the_admin_port(repository: Path, method: str) -> None:
    async with running_server(repository) as server, inference_of(server.address) as stub:
        error = await refused(getattr(stub, method)(load_request()))
        about = await stub.ServerMetadata(pb.ServerMetadataRequest())
        assert server.current().version == 1
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == (
        f"{method} is for operators: ask the admin port (the setting `admin`, usually port 8003)"
    )
    assert "model_repository" not in about.extensions
