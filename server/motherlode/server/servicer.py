"""The RPCs of `motherlode.v1.RetrievalService`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from importlib.metadata import version
from typing import Any, final

from typing_extensions import override

from motherlode.server import correlation, status
from motherlode.server.config import ServerConfig
from motherlode.server.reception import Reception
from motherlode.server.slot import Catalog
from motherlode.server.status import StreamIdleError, abort
from motherlode.server.wire import TOP_K, server_info
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc


@final
class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers by way of the reception, one request at a time or many of a stream."""

    def __init__(self, config: ServerConfig, catalog: Catalog, reception: Reception) -> None:
        self._config = config
        self._catalog = catalog
        self._reception = reception
        self._server_version = version("motherlode")

    @override
    async def TopK(self, request: pb.TopKRequest, context: Any) -> pb.TopKResponse:
        try:
            return await self._reception.answer(
                request, TOP_K, "TopK", context.time_remaining(), context.caller
            )
        except Exception as error:
            await abort(context, error)

    @override
    async def TopKStream(
        self, request_iterator: AsyncIterator[pb.TopKStreamRequest], context: Any
    ) -> AsyncIterator[pb.TopKStreamResponse]:
        stream = _Stream(self._config.max_stream_requests, self._config.max_stream_idle_s)
        reader = asyncio.create_task(self._read(aiter(request_iterator), context, stream))
        try:
            while (answer := await stream.answers.get()) is not None:
                yield await answer
                stream.room.release()
            is_cut_short = await reader
        except StreamIdleError as error:
            await abort(context, error)
        finally:
            reader.cancel()
            stream.cancel()
        if is_cut_short:
            assert self._reception.refusal is not None
            await abort(context, self._reception.refusal)

    @override
    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        return server_info(self._server_version, self._config, self._catalog)

    async def _read(
        self, requests: AsyncIterator[pb.TopKStreamRequest], context: Any, stream: _Stream
    ) -> bool:
        """Starts on each request of a stream; gives whether the server stopped before its end."""
        draining = asyncio.create_task(self._reception.draining.wait())
        try:
            while (request := await stream.next_unless(requests, draining)) is not None:
                stream.begin(self._answer_in_band(request.request, context))
            return draining.done()
        finally:
            draining.cancel()
            stream.answers.put_nowait(None)

    async def _answer_in_band(self, request: pb.TopKRequest, context: Any) -> pb.TopKStreamResponse:
        try:
            # A stream has so many requests under way and no more, and is made for waiting.
            response = await self._reception.answer(
                request,
                TOP_K,
                "TopKStream",
                context.time_remaining(),
                context.caller,
                is_patient=True,
            )
        except Exception as error:
            status.forget_frames(error)
            return pb.TopKStreamResponse(error=_stream_error(error))
        return pb.TopKStreamResponse(response=response)


def _stream_error(error: Exception) -> pb.StreamError:
    return pb.StreamError(
        code=status.code_of(error).value[0],
        message=status.message_of(error),
        reason=status.reason_of(error),
        retry_after_s=status.retry_after_s_of(error),
        request_id=correlation.current().request_id,
    )


@final
class _Stream:
    """The requests of one stream that are under way, in their order.

    A caller who does not read his answers finds that his requests are not read either.
    """

    def __init__(self, max_requests: int, max_idle_s: float) -> None:
        self._max_idle_s = max_idle_s
        self.room = asyncio.Semaphore(max_requests)
        self.answers: asyncio.Queue[asyncio.Task[pb.TopKStreamResponse] | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[pb.TopKStreamResponse]] = set()

    async def next_unless(
        self, requests: AsyncIterator[pb.TopKStreamRequest], stop: asyncio.Task[Any]
    ) -> pb.TopKStreamRequest | None:
        """The next request once there is room; None at the end, or when `stop` is done."""
        coming = asyncio.create_task(self._next(requests))
        try:
            await asyncio.wait({coming, stop}, return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else None
        finally:
            coming.cancel()

    def begin(self, answer: Coroutine[Any, Any, pb.TopKStreamResponse]) -> None:
        """Starts to answer the request that was read last."""
        task = asyncio.create_task(answer)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.answers.put_nowait(task)

    def cancel(self) -> None:
        """Gives up what is under way."""
        for task in self._tasks:
            task.cancel()

    async def _next(
        self, requests: AsyncIterator[pb.TopKStreamRequest]
    ) -> pb.TopKStreamRequest | None:
        await self.room.acquire()
        try:
            async with asyncio.timeout(self._max_idle_s):
                return await anext(requests, None)
        except TimeoutError:
            raise StreamIdleError(f"no request came for {self._max_idle_s:g} s") from None
