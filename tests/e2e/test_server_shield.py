"""What callers are told of failures that nobody foresaw, and of bytes that are no message."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from motherlode.server import app as app_module
from motherlode.server import servicer as servicer_module
from motherlode.server.http2.messages import prefixed
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import publish_tiny
from tests.support.h2_caller import h2_caller
from tests.support.servers import TIMEOUT_S, RunningServer, running_server, text_request

pytestmark = pytest.mark.asyncio

# No message of protobuf begins so: field 0 does not exist.
JUNK = b"\x00\xff\xff"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


async def end_of(call: Any) -> tuple[str, str, str]:
    """Code, reason, and all that a caller can read of the end of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    info, trailers = error_details_pb2.ErrorInfo(), dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.details[0].Unpack(info)
    return error.code().name, info.reason, f"{error.details()} {trailers} {status}"


def explode(*_: Any) -> Any:
    raise ZeroDivisionError(f"secret: {traceback.format_stack()}")


async def test_a_method_that_fails_says_internal_and_nothing_else(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servicer_module, "server_info", explode)
    async with running_server(repository) as server:
        code, reason, told = await end_of(server.stub.GetServerInfo(pb.GetServerInfoRequest()))
        assert (await server.ask("topic7", k=1)).labels == [7]
    assert (code, reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in told
    assert ".py" not in told
    assert "/motherlode.v1.RetrievalService/GetServerInfo failed" in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text


def handlers_that_explode() -> dict[str, Any]:
    async def unary(*_: Any) -> Any:
        explode()

    async def stream(*_: Any) -> AsyncIterator[Any]:
        yield b"first"
        explode()

    async def written(_: Any, context: Any) -> None:
        await context.write(b"first")
        explode()

    return {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(unary),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(unary),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(stream),
        "StreamStream": grpc.stream_stream_rpc_method_handler(stream),
        "Written": grpc.unary_stream_rpc_method_handler(written),
    }


@pytest.mark.parametrize("method", sorted(handlers_that_explode()))
async def test_so_do_methods_of_every_kind_on_the_admin_port(
    repository: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def register(_: Any, server: Any) -> None:
        server.add_registered_method_handlers("test.Bomb", handlers_that_explode())

    async def call(channel: grpc.aio.Channel) -> None:
        if method == "UnaryUnary":
            await channel.unary_unary(f"/test.Bomb/{method}")(b"", timeout=TIMEOUT_S)
        elif method == "StreamUnary":
            await channel.stream_unary(f"/test.Bomb/{method}")(iter([b""]), timeout=TIMEOUT_S)
        else:
            asked = channel.unary_stream(f"/test.Bomb/{method}")(b"", timeout=TIMEOUT_S)
            assert [one async for one in asked] == [b"first"]

    monkeypatch.setattr(app_module.Server, "_register_admin", register)
    async with (
        running_server(repository) as server,
        grpc.aio.insecure_channel(server.readiness.admin) as channel,
    ):
        code, reason, told = await end_of(call(channel))
    assert (code, reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in told
    assert ".py" not in told


@pytest.mark.parametrize(
    "method",
    [
        "motherlode.v1.RetrievalService/TopK",
        "motherlode.v1.RetrievalService/GetServerInfo",
        "inference.GRPCInferenceService/ModelInfer",
        "inference.GRPCInferenceService/ModelMetadata",
    ],
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    repository: Path, method: str
) -> None:
    async with running_server(repository) as server:
        code, reason, told = await end_of(server.channel.unary_unary(f"/{method}")(JUNK))
    assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert "request: expected a well-formed message, got " in told


async def test_so_are_such_bytes_within_a_stream(repository: Path) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield JUNK

    async with running_server(repository) as server:
        stream = server.channel.stream_stream("/motherlode.v1.RetrievalService/TopKStream")
        code, reason, _ = await end_of(stream(requests()).read())
        assert (await server.ask("topic7", k=1)).labels == [7]
    assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")


# By the status that they get: bytes of a request of which no method sees anything.
UNREAD = [
    ("INVALID_ARGUMENT", prefixed(JUNK)),
    ("INVALID_ARGUMENT", prefixed(b"half of it")[:-5]),
    ("INVALID_ARGUMENT", b"\x01" + prefixed(b"not compressed")[1:]),
    ("RESOURCE_EXHAUSTED", prefixed(bytes(2000))),
]


def counted(server: RunningServer) -> dict[tuple[str, str], float]:
    """Requests that ended before they had a model, by method and code."""
    samples = (s for f in server.server.meters.registry.collect() for s in f.samples)
    return {
        (one.labels["method"], one.labels["code"]): one.value
        for one in samples
        if one.name == "motherlode_requests_total" and not one.labels["model"]
    }


@pytest.mark.parametrize(
    ("service", "method"),
    [
        ("motherlode.v1.RetrievalService", "TopK"),
        ("motherlode.v1.RetrievalService", "TopKStream"),
        ("inference.GRPCInferenceService", "ModelInfer"),
    ],
)
async def test_requests_that_cannot_be_read_are_counted_and_logged_like_others(
    repository: Path, caplog: pytest.LogCaptureFixture, service: str, method: str
) -> None:
    caplog.set_level(logging.INFO, "motherlode.server.witness")
    expected = Counter((method, code) for code, _ in UNREAD)
    async with running_server(repository, max_message_bytes=1024) as server:
        async with h2_caller(int(server.address.rpartition(":")[2])) as caller:
            for code, request in UNREAD:
                stream_id = caller.open(f"/{service}/{method}", [("grpc-encoding", "gzip")])
                await caller.send(stream_id, request)
                await caller.until(lambda stream_id=stream_id: caller.heard[stream_id].is_over)
                assert caller.heard[stream_id].code.name == code
        assert counted(server) == expected
    lines = [vars(one) for one in caplog.records if one.message == "failed call"]
    assert [(one["method"], one["code"]) for one in lines] == [(method, c) for c, _ in UNREAD]
    assert {one["field"] for one in lines} == {"request"}


async def test_a_request_that_turns_out_too_long_after_its_start_is_counted_once(
    repository: Path,
) -> None:
    async with running_server(repository, max_message_bytes=1024) as server:
        async with h2_caller(int(server.address.rpartition(":")[2])) as caller:
            stream_id = caller.open("/motherlode.v1.RetrievalService/TopKStream")
            request = pb.TopKStreamRequest(request=text_request("topic7"))
            caller.h2.send_data(stream_id, prefixed(request.SerializeToString()))
            await caller.flush()
            await caller.until(lambda: bool(caller.heard[stream_id].data))
            await caller.send(stream_id, prefixed(bytes(2000)))
            await caller.until(lambda: caller.heard[stream_id].is_over)
        assert counted(server) == {("TopKStream", "RESOURCE_EXHAUSTED"): 1}
        labels = {"model": "tiny", "version": "1", "method": "TopKStream", "code": "OK"}
        assert server.metric("requests_total", **labels) == 1


async def test_of_methods_whose_requests_are_not_counted_no_failures_are(repository: Path) -> None:
    async with running_server(repository) as server:
        for method in (
            "motherlode.v1.RetrievalService/GetServerInfo",
            "inference.GRPCInferenceService/ModelMetadata",
            "grpc.health.v1.Health/Check",
        ):
            await end_of(server.channel.unary_unary(f"/{method}")(JUNK))
        assert counted(server) == {}
