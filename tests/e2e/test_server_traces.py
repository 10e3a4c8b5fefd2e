"""Spans of real calls, kept in memory or sent to a collector."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from motherlode.core.errors import ConfigError
from motherlode.server.app import Server
from motherlode.server.config import load_config
from motherlode.server.witness import Witness
from tests.support.bundles import publish_tiny
from tests.support.servers import Barrier, RunningServer, running_server, text_request
from tests.support.waiting import until

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

from motherlode.server.tracing import Tracing

pytestmark = pytest.mark.asyncio

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def parent(flags: str) -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{TRACE}-{PARENT}-{flags}"),)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_tiny(tmp_path)
    return tmp_path


@asynccontextmanager
async def traced(
    repository: Path, sample_rate: float = 1.0
) -> AsyncIterator[tuple[RunningServer, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter), sample_rate=sample_rate)
    async with running_server(repository) as server:
        vars(server.server)["_reception"].witness = Witness(tracing=tracing)
        yield server, exporter
    tracing.close()


async def spans_of(exporter: InMemorySpanExporter, name: str, count: int = 1) -> list[Any]:
    def found() -> Sequence[Any]:
        return [span for span in exporter.get_finished_spans() if span.name == name]

    await until(lambda: len(found()) == count)
    return list(found())


async def test_a_call_is_a_span_with_its_stages_within(repository: Path) -> None:
    async with traced(repository) as (server, exporter):
        await server.stub.TopK(text_request("topic7", k=2), metadata=(("x-request-id", "r1"),))
        [call] = await spans_of(exporter, "TopK")
        stages = [span for span in exporter.get_finished_spans() if span is not call]
    assert {"queue", "features", "encode", "search"} <= {span.name for span in stages}
    assert {span.parent.span_id for span in stages} == {call.context.span_id}
    assert all(call.start_time <= s.start_time <= s.end_time <= call.end_time for s in stages)
    expected = {"model": "tiny", "version": 1, "k": 2, "num_queries": 1, "request_id": "r1"}
    assert {f"motherlode.{k}": v for k, v in expected.items()}.items() <= call.attributes.items()
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.resource.attributes["service.name"] == "motherlode"


async def test_a_stage_tells_the_size_of_its_batch(repository: Path) -> None:
    async with traced(repository) as (server, exporter):
        with Barrier(server.current().retriever) as barrier:
            first = asyncio.create_task(server.ask("topic1", "topic2"))
            await asyncio.to_thread(barrier.wait_entered)
            rest = [asyncio.create_task(server.ask(f"topic{i}")) for i in range(3)]
            await until(lambda: server.metric("queue_depth") == 3)
            barrier.release()
            await asyncio.gather(first, *rest)
        spans = await spans_of(exporter, "search", 4)
    assert sorted(s.attributes["motherlode.batch_size"] for s in spans) == [2, 3, 3, 3]


async def test_a_caller_with_a_trace_finds_the_call_in_it(repository: Path) -> None:
    async with traced(repository, sample_rate=0.0) as (server, exporter):
        await server.stub.TopK(text_request("topic7"), metadata=parent("01"))
        [call] = await spans_of(exporter, "TopK")
    assert f"{call.context.trace_id:032x}" == TRACE
    assert f"{call.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize(
    ("sample_rate", "metadata"),
    [(1.0, parent("00")), (0.0, ()), (0.0, (("traceparent", "nonsense"),))],
)
async def test_what_is_not_sampled_leaves_no_span(
    repository: Path, sample_rate: float, metadata: tuple[tuple[str, str], ...]
) -> None:
    async with traced(repository, sample_rate) as (server, exporter):
        await server.stub.TopK(text_request("topic7"), metadata=metadata)
        await server.stub.TopK(text_request("topic7"), metadata=parent("01"))
        spans = await spans_of(exporter, "TopK")
    assert [f"{span.context.trace_id:032x}" for span in spans] == [TRACE]


async def test_a_failed_call_is_a_span_with_its_status(repository: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the model")

    async with traced(repository) as (server, exporter):
        with pytest.raises(grpc.aio.AioRpcError):
            await server.ask("topic7", k=0)
        vars(server.current().retriever)["top_k"] = fail
        with pytest.raises(grpc.aio.AioRpcError):
            await server.ask("topic7")
        refused, broken = await spans_of(exporter, "TopK", 2)
    assert (refused.attributes["rpc.grpc.status_code"], refused.status.is_ok) == (3, True)
    assert (broken.attributes["rpc.grpc.status_code"], broken.status.is_ok) == (13, False)
    assert "secret" not in str(broken.to_json())


class Collector(otlp_grpc.TraceServiceServicer):  # type: ignore[misc]
    def __init__(self) -> None:
        self.names: list[str] = []

    async def Export(self, request: Any, _: Any) -> Any:
        scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
        self.names += [span.name for scope in scopes for span in scope.spans]
        return otlp.ExportTraceServiceResponse()


async def test_a_server_sends_its_spans_to_the_collector_before_it_ends(repository: Path) -> None:
    collector, receiver = Collector(), grpc.aio.server()
    otlp_grpc.add_TraceServiceServicer_to_server(collector, receiver)
    port = receiver.add_insecure_port("127.0.0.1:0")
    await receiver.start()
    settings = {"trace_endpoint": f"http://127.0.0.1:{port}", "trace_sample_rate": 1.0}
    async with running_server(repository, **settings) as server:
        await server.ask("topic7")
    await receiver.stop(None)
    assert {"TopK", "search"} <= set(collector.names)


async def test_without_the_packages_the_setting_says_what_to_install(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "motherlode.server.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings = {"repository": repository, "trace_endpoint": "http://localhost:4317"}
    with pytest.raises(ConfigError, match=r"trace_endpoint: expected the extra otel"):
        Server(load_config(None, settings))
