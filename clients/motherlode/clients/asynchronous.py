"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Sequence,
)
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, final

from numpy.typing import ArrayLike

from motherlode.clients.aio_transport import AsyncGrpcTransport, AsyncStream, AsyncTransport
from motherlode.clients.channel import Metadata, Tls, health_service
from motherlode.clients.errors import ClientError
from motherlode.clients.info import HealthStatus, ServerInfo
from motherlode.clients.queries import QueryBatch, query_batch
from motherlode.clients.question import Question, QuestionOptions
from motherlode.clients.result import TopKResult
from motherlode.clients.steps import (
    Call,
    Session,
    Sleep,
    Steps,
    check_timeout,
    health_steps,
    server_info_steps,
    top_k_steps,
)
from motherlode.clients.stream_steps import (
    Drop,
    Emit,
    Finish,
    Pull,
    Receive,
    Send,
    Step,
    StreamSteps,
    stream_steps,
)

__all__ = ["AsyncClient"]

Result = TypeVar("Result")
Batches = Iterable[Sequence[str] | QueryBatch] | AsyncIterable[Sequence[str] | QueryBatch]


@final
class AsyncClient:
    """A connection to a server, for any number of calls at a time within one event loop.

    Make it inside the running loop. Use it as an asynchronous context manager, or await `close`.
    Everything else is as `Client` says.

    Args:
        target: See `Client`; so for the rest.
        timeout_s: Seconds that a call may take unless it says otherwise.
        tls: For an encrypted connection.
        key: The caller's key.
        metadata: Sent with each call.
        options: Further gRPC channel options.
        transport: Used in place of a gRPC channel, for tests.

    Raises:
        ValueError: See `Client`.
        OSError: If a file of `tls` cannot be read.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = 10.0,
        tls: Tls | None = None,
        key: str | None = None,
        metadata: Metadata = (),
        options: Sequence[tuple[str, Any]] = (),
        transport: AsyncTransport | None = None,
    ) -> None:
        self.target = target
        self._timeout_s = check_timeout(timeout_s)
        self._session = Session()
        self._transport = transport or AsyncGrpcTransport(
            target, tls=tls, key=key, metadata=metadata, options=options
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._transport.close()

    async def top_k(
        self,
        queries: Sequence[str] | QueryBatch | None = None,
        k: int = 10,
        *,
        embeddings: ArrayLike | None = None,
        features: ArrayLike | None = None,
        sparse: Any = None,
        timeout_s: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> TopKResult:
        """The best k labels of each query, all from one version; see `Client.top_k`.

        Raises:
            ClientError: See `motherlode.clients.errors`.
        """
        batch = query_batch(queries, embeddings=embeddings, features=features, sparse=sparse)
        question = Question(k=k, **options)
        return await self._run(
            top_k_steps(self._session, batch, question, self._timeout(timeout_s))
        )

    def top_k_stream(
        self,
        batches: Batches,
        k: int = 10,
        *,
        timeout_s: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> AsyncGenerator[TopKResult, None]:
        """One result per batch, in order; see `Client.top_k_stream`.

        To stop early, await the generator's `aclose`, or use `contextlib.aclosing`.

        Args:
            batches: An iterable or asynchronous iterable of lists of texts or of batches made by
                `query_batch`.
            k: Labels per query.
            timeout_s: Seconds to wait for the answer to one batch.
            **options: As for `top_k`.

        Raises:
            ClientError: See `motherlode.clients.errors`. It ends the iteration.
        """
        question = Question(k=k, **options)
        steps = stream_steps(self._session, question, self._timeout(timeout_s))
        return self._run_stream(steps, _iterate(batches))

    async def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """The server's limits and models."""
        return await self._run(server_info_steps(self._session, self._timeout(timeout_s)))

    async def health(
        self, model: str | None = None, *, timeout_s: float | None = None
    ) -> HealthStatus:
        """Whether a model, or the whole server, is ready to answer; unknown if there is none."""
        return await self._run(health_steps(health_service(model), self._timeout(timeout_s)))

    def _timeout(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else check_timeout(timeout_s)

    async def _run(self, steps: Steps[Result]) -> Result:
        course = _Course(self._transport, _iterate(()))
        resume = partial(steps.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as stop:
                result: Result = stop.value
                return result
            resume = await course.carry_out(step, steps)

    async def _run_stream(
        self, steps: StreamSteps, batches: AsyncIterator[Sequence[str] | QueryBatch]
    ) -> AsyncGenerator[TopKResult, None]:
        course = _Course(self._transport, batches)
        resume: Callable[[], Step] = partial(steps.send, None)
        try:
            while True:
                try:
                    step = resume()
                except StopIteration:
                    return
                if isinstance(step, Emit):
                    yield step.result
                resume = await course.carry_out(step, steps)
        finally:
            course.close()


@final
class _Course:
    """Carries out the steps of one call or stream."""

    def __init__(
        self, transport: AsyncTransport, batches: AsyncIterator[Sequence[str] | QueryBatch]
    ) -> None:
        self._transport = transport
        self._batches = batches
        self._stream: AsyncStream | None = None

    async def carry_out(self, step: Step, steps: Any) -> Any:
        """Do one step; returns how to go on."""
        try:
            outcome = await self._do(step)
        except ClientError as error:
            return partial(steps.throw, error)
        return partial(steps.send, outcome)

    def close(self) -> None:
        """End the stream, if one is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def _do(self, step: Step) -> Any:
        match step:
            case Call():
                return await self._transport.call(step)
            case Sleep():
                await asyncio.sleep(step.seconds)
            case Pull():
                return await anext(self._batches, None)
            case Send():
                self._stream = self._stream or self._transport.open_stream()
                self._stream.send(step.message)
            case Receive() if self._stream is not None:
                return await self._stream.receive(step.timeout_s)
            case Finish() if self._stream is not None:
                self._stream.finish()
            case Drop():
                self.close()
        return None


async def _iterate(batches: Batches) -> AsyncIterator[Sequence[str] | QueryBatch]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch
