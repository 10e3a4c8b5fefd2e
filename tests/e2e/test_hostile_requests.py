"""Whatever bytes come, to whatever method: the caller is told why, and the server goes on."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.test_server import details
from tests.support.bundles import publish_dense, publish_tiny
from tests.support.hostile import METHODS, requests_of
from tests.support.servers import TIMEOUT_S, RunningServer, running_server
from tests.support.waiting import until

# No message of any type begins with a field of number 0.
NO_MESSAGE = b"\x00\xff"
# The server's own fault, or it never answered.
FAULTS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def server(
    loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("repository")
    publish_tiny(repository)
    publish_dense(repository)
    stack = AsyncExitStack()
    yield loop.run(_enter(stack, repository))
    loop.run(stack.aclose())


async def _enter(stack: AsyncExitStack, repository: Path) -> RunningServer:
    return await stack.enter_async_context(running_server(repository))


async def send(server: RunningServer, method: Any, data: bytes) -> grpc.aio.Call:
    """Sends bytes and gives the call once it has answered: an endless stream with its first."""

    async def stream() -> AsyncIterator[bytes]:
        yield data

    path = f"/{method.containing_service.full_name}/{method.name}"
    if not method.server_streaming:
        unary = server.channel.unary_unary(path)(data, timeout=TIMEOUT_S)
        await unary.code()
        return unary
    if method.client_streaming:
        call = server.channel.stream_stream(path)(stream(), timeout=TIMEOUT_S)
    else:
        call = server.channel.unary_stream(path)(data, timeout=TIMEOUT_S)
    try:
        if await call.read() is not grpc.aio.EOF:
            call.cancel()
    except grpc.aio.AioRpcError:
        pass
    return call


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_bytes_that_are_no_message_are_an_invalid_argument(
    loop: asyncio.Runner, server: RunningServer, method: Any
) -> None:
    async def refusal() -> grpc.aio.AioRpcError:
        call = await send(server, method, NO_MESSAGE)
        return grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata()
        )

    error = loop.run(refusal())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)["ErrorInfo"].reason == "INVALID_ARGUMENT"
    assert details(error)["ErrorInfo"].metadata["field"] == "request"


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    sent=st.sampled_from(METHODS).flatmap(
        lambda method: st.tuples(st.just(method), requests_of(method))
    )
)
def test_no_request_is_the_servers_fault_and_the_next_one_is_answered(
    loop: asyncio.Runner, server: RunningServer, sent: tuple[Any, bytes]
) -> None:
    async def statuses() -> tuple[Any, int]:
        call = await send(server, *sent)
        response = await server.ask("topic7", model={"name": "tiny"})
        return await call.code(), response.labels[0]

    code, label = loop.run(statuses())
    assert code not in FAULTS
    assert label == 7


async def _wait_gone_after_a_refusal(repository: Path) -> None:
    async with running_server(repository, kept_versions=0) as server:
        version = weakref.ref(server.current())
        with pytest.raises(grpc.aio.AioRpcError):
            await server.ask("topic7", k=10**6)
        publish_tiny(repository, seed=1)
        await server.server.watcher.scan()
        await until(lambda: version() is None)


def test_a_refused_call_does_not_keep_its_version_in_memory(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    # A full collection would hide it, and in a server one is rare.
    gc.disable()
    try:
        asyncio.run(_wait_gone_after_a_refusal(tmp_path))
    finally:
        gc.enable()
