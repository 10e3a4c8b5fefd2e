"""One face for the blocking and the asyncio client, so that every test asks both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

from motherlode.clients import AsyncClient, Client, TopKResult
from motherlode.clients.info import HealthStatus, ServerInfo
from tests.support.retrieval import AsyncFakeTransport, FakeTransport

Result = TypeVar("Result")


class Caller(Protocol):
    """Opens a client for each call; nothing stays open."""

    def top_k(self, *args: Any, **kwargs: Any) -> TopKResult: ...
    def top_k_stream(
        self, batches: Iterable[Any], *args: Any, take: int | None = None, **kwargs: Any
    ) -> list[TopKResult]: ...
    def server_info(self) -> ServerInfo: ...
    def health(self, model: str | None = None) -> HealthStatus: ...


class BlockingCaller:
    """Calls of the blocking client."""

    def __init__(self, target: str, transport: FakeTransport | None = None, **options: Any) -> None:
        self._open: Callable[[], Client] = lambda: Client(target, transport=transport, **options)

    def top_k(self, *args: Any, **kwargs: Any) -> TopKResult:
        with self._open() as client:
            return client.top_k(*args, **kwargs)

    def top_k_stream(
        self, batches: Iterable[Any], *args: Any, take: int | None = None, **kwargs: Any
    ) -> list[TopKResult]:
        with self._open() as client:
            results: list[TopKResult] = []
            stream = client.top_k_stream(batches, *args, **kwargs)
            for result in stream:
                results.append(result)
                if len(results) == take:
                    stream.close()
                    break
            return results

    def server_info(self) -> ServerInfo:
        with self._open() as client:
            return client.server_info()

    def health(self, model: str | None = None) -> HealthStatus:
        with self._open() as client:
            return client.health(model)


class AsyncCaller:
    """Calls of the asyncio client, each in an event loop of its own."""

    def __init__(self, target: str, transport: FakeTransport | None = None, **options: Any) -> None:
        fake = None if transport is None else AsyncFakeTransport(transport)
        self._open: Callable[[], AsyncClient] = lambda: AsyncClient(
            target, transport=fake, **options
        )

    def top_k(self, *args: Any, **kwargs: Any) -> TopKResult:
        return self._run(lambda client: client.top_k(*args, **kwargs))

    def top_k_stream(
        self, batches: Iterable[Any], *args: Any, take: int | None = None, **kwargs: Any
    ) -> list[TopKResult]:
        async def collect(client: AsyncClient) -> list[TopKResult]:
            results: list[TopKResult] = []
            stream = client.top_k_stream(batches, *args, **kwargs)
            async for result in stream:
                results.append(result)
                if len(results) == take:
                    await stream.aclose()
                    break
            return results

        return self._run(collect)

    def server_info(self) -> ServerInfo:
        return self._run(lambda client: client.server_info())

    def health(self, model: str | None = None) -> HealthStatus:
        return self._run(lambda client: client.health(model))

    def _run(self, ask: Callable[[AsyncClient], Awaitable[Result]]) -> Result:
        async def call() -> Result:
            async with self._open() as client:
                return await ask(client)

        return asyncio.run(call())


CALLERS: dict[str, Callable[..., Caller]] = {
    "blocking": BlockingCaller,
    "asyncio": AsyncCaller,
}
