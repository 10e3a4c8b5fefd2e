"""Request ids from the caller to the log and back, slow and failed calls, and channelz."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from motherlode.clients import (
    AdminClient,
    AsyncClient,
    Client,
    InvalidArgumentError,
    NotFoundError,
    ServerError,
)
from motherlode.server.correlation import current, stamp, stamp_logs
from motherlode.server.keys import entry_of, new_key
from motherlode.server.roles import Role
from motherlode.v1 import model_admin_pb2 as admin_pb
from tests.support.bundles import publish_tiny
from tests.support.servers import TIMEOUT_S, RunningServer, running_server, server_process
from tests.support.servers import text_request as texts
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

ID = "x-request-id"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def stamped(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Records as the handlers of a server process see them."""
    caplog.set_level(logging.INFO)
    before = [*logging.getLogger().handlers]
    stamp_logs()
    yield caplog
    for handler in before:
        handler.removeFilter(stamp)


def break_retriever(server: RunningServer) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the model")

    vars(server.current().retriever)["top_k"] = fail


async def id_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(dict(error.trailing_metadata() or ())[ID])
    return str(dict(await call.trailing_metadata())[ID])


async def test_a_caller_gets_its_own_request_id_back(repository: Path) -> None:
    async with running_server(repository) as server:
        call = server.stub.TopK(texts("topic7"), metadata=((ID, "order-12/3"),))
        assert await id_of(call) == "order-12/3"


async def test_a_caller_without_one_gets_a_new_one_each_time(repository: Path) -> None:
    async with running_server(repository) as server:
        ids = [await id_of(server.stub.TopK(texts("topic7"))) for _ in range(3)]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 129, "a;b", 'a"b', "a{b}"])
async def test_an_id_that_could_forge_or_fill_a_log_is_replaced(
    repository: Path, wrong: str
) -> None:
    async with running_server(repository) as server:
        got = await id_of(server.stub.TopK(texts("topic7"), metadata=((ID, wrong),)))
    assert got not in {"", wrong}


async def test_a_stream_has_one_id(repository: Path) -> None:
    from motherlode.v1 import retrieval_pb2 as pb

    async with running_server(repository) as server:
        call = server.stub.TopKStream(metadata=((ID, "stream-1"),))
        for _ in range(2):
            await call.write(pb.TopKStreamRequest(request=texts("topic7")))
        await call.done_writing()
        assert len([answer async for answer in call]) == 2
        assert dict(await call.trailing_metadata())[ID] == "stream-1"


@asynccontextmanager
async def calling(server: RunningServer, port: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the port `listen` or `admin`."""
    async with grpc.aio.insecure_channel(getattr(server.readiness, port)) as channel:
        yield channel


def with_id(channel: grpc.aio.Channel, path: str, request: bytes = b"", **more: str) -> Any:
    """A call of any method with the request id `order-16`."""
    metadata = ((ID, "order-16"), *more.items())
    return channel.unary_unary(path)(request, metadata=metadata, timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("port", "path", "request_bytes", "code"),
    [
        ("listen", "/motherlode.v1.RetrievalService/GetServerInfo", b"", "OK"),
        ("listen", "/motherlode.v1.RetrievalService/TopK", b"\x00\xff", "INVALID_ARGUMENT"),
        ("listen", "/motherlode.v1.RetrievalService/Unheard", b"", "UNIMPLEMENTED"),
        ("listen", "/inference.GRPCInferenceService/ServerReady", b"", "OK"),
        ("listen", "/inference.GRPCInferenceService/RepositoryIndex", b"", "OK"),
        ("listen", "/grpc.health.v1.Health/Check", b"", "OK"),
        ("admin", "/motherlode.v1.ModelAdminService/ListModels", b"", "OK"),
        ("admin", "/motherlode.v1.ModelAdminService/LoadVersion", b"", "NOT_FOUND"),
        ("admin", "/inference.GRPCInferenceService/RepositoryIndex", b"", "OK"),
        ("admin", "/inference.GRPCInferenceService/RepositoryModelLoad", b"", "OK"),
        ("admin", "/inference.GRPCInferenceService/LogSettings", b"", "UNIMPLEMENTED"),
        ("admin", "/grpc.channelz.v1.Channelz/GetServers", b"", "OK"),
    ],
)
async def test_every_call_of_every_service_gets_its_id_back(
    repository: Path, port: str, path: str, request_bytes: bytes, code: str
) -> None:
    async with running_server(repository) as server, calling(server, port) as channel:
        call = with_id(channel, path, request_bytes)
        assert await id_of(call) == "order-16"
        assert (await call.code()).name == code


async def test_what_an_operator_did_is_found_in_the_log_by_the_id(
    repository: Path, stamped: pytest.LogCaptureFixture
) -> None:
    async with running_server(repository) as server, calling(server, "admin") as channel:
        method = "/motherlode.v1.ModelAdminService/UnloadModel"
        await with_id(channel, method, admin_pb.UnloadModelRequest().SerializeToString())
        await until(lambda: any(one.message == "tiny@1 is gone" for one in stamped.records))
    lines = {r.message for r in stamped.records if vars(r).get("request_id") == "order-16"}
    assert lines == {"model tiny is unloaded", "tiny@1 is gone"}


async def test_who_called_as_an_operator_is_found_by_the_id(
    repository: Path, tmp_path: Path, stamped: pytest.LogCaptureFixture
) -> None:
    key, keys_file = new_key(), tmp_path / "keys.toml"
    keys_file.write_text(entry_of(key, "operator", Role.ADMIN, None), encoding="utf-8")
    method = "/motherlode.v1.ModelAdminService/ListModels"
    async with (
        running_server(repository, keys_file=keys_file) as server,
        calling(server, "admin") as channel,
    ):
        refused = with_id(channel, method)
        assert await id_of(refused) == "order-16"
        assert await refused.code() is grpc.StatusCode.UNAUTHENTICATED
        await with_id(channel, method, authorization=f"Bearer {key}")
    lines = [r.message for r in stamped.records if vars(r).get("request_id") == "order-16"]
    assert lines == [f"{method} is called with the key operator"]


async def test_a_bug_can_be_found_in_the_log_by_what_the_caller_was_told(
    repository: Path, stamped: pytest.LogCaptureFixture
) -> None:
    async with running_server(repository) as server:
        break_retriever(server)
        call = server.stub.TopK(texts("topic7"), metadata=((ID, "order-12"),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("INTERNAL", {"request_id": "order-12"})
    assert trailers[ID] == "order-12"
    lines = [r for r in stamped.records if vars(r).get("request_id") == "order-12"]
    # From the engine's thread with the traceback, and from the loop.
    assert {"motherlode.server.engine", "motherlode.server.witness"} <= {r.name for r in lines}


async def test_a_refused_call_keeps_its_other_details(repository: Path) -> None:
    async with running_server(repository) as server:
        call = server.stub.TopK(texts("topic7", k=0), metadata=((ID, "order-13"),))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers[ID] == "order-13"
    assert len(status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details) == 2


async def test_a_slow_call_is_logged_with_its_id(
    repository: Path, stamped: pytest.LogCaptureFixture
) -> None:
    async with running_server(repository, slow_call_s=0) as server:
        await server.stub.TopK(texts("topic7"), metadata=((ID, "order-14"),))
    [record] = [r for r in stamped.records if r.message == "slow call"]
    assert vars(record)["request_id"] == "order-14"


async def test_an_answered_call_leaves_no_line(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_server(repository, slow_call_s=float("inf")) as server:
        caplog.clear()
        caplog.set_level(logging.INFO)
        await server.ask("topic7")
        assert [r for r in caplog.records if r.name.startswith("motherlode")] == []


async def test_outside_of_calls_there_is_no_id() -> None:
    assert current().request_id == ""
    record = logging.makeLogRecord({})
    assert stamp(record)
    assert not hasattr(record, "request_id")


async def test_a_process_writes_json_with_ids(repository: Path, tmp_path: Path) -> None:
    flags = ["--log-format", "json", "--set", "slow_call_s=0"]
    with server_process(repository, tmp_path / "ready.json", flags) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            from motherlode.v1 import retrieval_pb2_grpc

            stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)
            await stub.TopK(texts("topic7"), metadata=((ID, "order-15"),), timeout=TIMEOUT_S)
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log if line.startswith("{")]
    [slow] = [line for line in lines if line["message"] == "slow call"]
    assert (slow["request_id"], slow["model"], slow["code"]) == ("order-15", "tiny", "OK")
    assert [line for line in server.log if not line.startswith(("{", "motherlode: "))] == []


async def test_channelz_on_the_admin_port_counts_the_calls_of_each_server(
    repository: Path,
) -> None:
    async with running_server(repository) as server:
        await server.ask("topic7")
        async with grpc.aio.insecure_channel(server.readiness.admin) as channel:
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            reply = await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT_S)
        started = [s.data.calls_started for s in reply.server]
    assert len(reply.server) >= 2
    assert sum(started) >= 2


async def test_channelz_is_for_operators_alone(repository: Path) -> None:
    async with running_server(repository) as server:
        stub = channelz_pb2_grpc.ChannelzStub(server.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        async with grpc.aio.insecure_channel(server.readiness.admin) as channel:
            names = await services(channel)
    assert "grpc.channelz.v1.Channelz" in names


async def services(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(timeout=TIMEOUT_S)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    reply = await call.read()
    call.cancel()
    return {service.name for service in reply.list_services_response.service}


async def test_errors_of_the_clients_have_the_id_of_their_call(repository: Path) -> None:
    metadata = ((ID, "order-12"),)
    async with (
        running_server(repository) as server,
        AsyncClient(server.address, timeout_s=TIMEOUT_S, metadata=metadata) as client,
    ):
        with pytest.raises(InvalidArgumentError) as wrong:
            await client.top_k(["topic7"], k=5000)
        with pytest.raises(InvalidArgumentError) as streamed:
            await anext(client.top_k_stream([["topic7"]], k=5000))
        break_retriever(server)
        with pytest.raises(ServerError, match=r"internal error.* \(request order-12\)"):
            await client.top_k(["topic7"])

        def ask() -> None:
            with Client(server.address, timeout_s=TIMEOUT_S, metadata=metadata) as blocking:
                blocking.top_k(["topic7"], k=5000)

        with pytest.raises(InvalidArgumentError) as blocked:
            await asyncio.to_thread(ask)

        def operate() -> None:
            with AdminClient(server.readiness.admin, metadata=metadata) as operator:
                operator.load_version(9)

        with pytest.raises(NotFoundError) as operated:
            await asyncio.to_thread(operate)
    ids = [one.value.request_id for one in (wrong, streamed, blocked, operated)]
    assert ids == ["order-12"] * 4
