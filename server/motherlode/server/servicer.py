"""The RPCs of `motherlode.v1.RetrievalService`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from importlib.metadata import version
from typing import Any, NoReturn, final

from grpc_status import rpc_status
from typing_extensions import override

from motherlode.core.errors import UnavailableError
from motherlode.server import status
from motherlode.server.batcher import Batcher
from motherlode.server.config import ServerConfig
from motherlode.server.engine import Call
from motherlode.server.metrics import Meters
from motherlode.server.slot import Catalog, ServedVersion
from motherlode.server.wire import choose_version, read_request, server_info, write_response
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc

logger = logging.getLogger(__name__)

_INFINITY = float("inf")


@final
class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Checks requests, queues them and writes their answers.

    Attributes:
        refusal: Why new requests are refused now; None while they are taken.
    """

    def __init__(
        self, config: ServerConfig, catalog: Catalog, batcher: Batcher, meters: Meters
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._batcher = batcher
        self._meters = meters
        self._num_in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = asyncio.Event()
        self._server_version = version("motherlode")
        self.refusal: UnavailableError | None = UnavailableError(
            "the server is starting", reason="STARTING"
        )
        meters.in_flight.set_function(lambda: self._num_in_flight)

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Refuses new requests from now on; those under way are answered."""
        self.refusal = UnavailableError("the server is stopping", reason="DRAINING")
        self._draining.set()

    async def wait_idle(self) -> None:
        """Returns when no request is under way."""
        await self._idle.wait()

    @override
    async def TopK(self, request: pb.TopKRequest, context: Any) -> pb.TopKResponse:
        try:
            return await self._answer(request, "TopK", context.time_remaining())
        except Exception as error:
            await _abort(context, error)

    @override
    async def TopKStream(
        self, request_iterator: AsyncIterator[pb.TopKStreamRequest], context: Any
    ) -> AsyncIterator[pb.TopKStreamResponse]:
        stream = _Stream(self._config.max_stream_requests)
        reader = asyncio.create_task(self._read(aiter(request_iterator), context, stream))
        try:
            while (answer := await stream.answers.get()) is not None:
                yield await answer
                stream.room.release()
            is_cut_short = await reader
        finally:
            reader.cancel()
            stream.cancel()
        if is_cut_short:
            assert self.refusal is not None
            await _abort(context, self.refusal)

    @override
    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        return server_info(self._server_version, self._config, self._catalog)

    async def _read(
        self, requests: AsyncIterator[pb.TopKStreamRequest], context: Any, stream: _Stream
    ) -> bool:
        """Starts on each request of a stream; gives whether the server stopped before its end."""
        draining = asyncio.create_task(self._draining.wait())
        try:
            while (request := await stream.next_unless(requests, draining)) is not None:
                stream.begin(self._answer_in_band(request.request, context))
            return draining.done()
        finally:
            draining.cancel()
            stream.answers.put_nowait(None)

    async def _answer_in_band(self, request: pb.TopKRequest, context: Any) -> pb.TopKStreamResponse:
        try:
            response = await self._answer(request, "TopKStream", context.time_remaining())
        except Exception as error:
            return pb.TopKStreamResponse(error=_stream_error(error))
        return pb.TopKStreamResponse(response=response)

    async def _answer(
        self, request: pb.TopKRequest, method: str, remaining_s: float | None
    ) -> pb.TopKResponse:
        arrived = time.monotonic()
        deadline = _INFINITY if remaining_s is None else arrived + remaining_s
        served: ServedVersion | None = None
        self._num_in_flight += 1
        self._idle.clear()
        try:
            served = self._admit(request)
            served.begin_call()
            response = await self._ask(request, served, arrived, deadline)
            served.meters.observe_request(method, time.monotonic() - arrived)
            return response
        except BaseException as error:
            self._count_failure(served, method, error, deadline)
            raise
        finally:
            if served is not None:
                served.end_call()
            self._num_in_flight -= 1
            if not self._num_in_flight:
                self._idle.set()

    def _admit(self, request: pb.TopKRequest) -> ServedVersion:
        if self.refusal is not None:
            self._meters.rejected.labels(self.refusal.reason.lower()).inc()
            raise self.refusal
        return choose_version(request, self._catalog)

    async def _ask(
        self, request: pb.TopKRequest, served: ServedVersion, arrived: float, deadline: float
    ) -> pb.TopKResponse:
        retriever, config = served.retriever, self._config
        if request.HasField("filter"):
            # A version's first filter builds a table of all label keys; others go on meanwhile.
            queries, label_filter = await asyncio.to_thread(
                read_request, request, retriever, config
            )
        else:
            queries, label_filter = read_request(request, retriever, config)
        future = asyncio.get_running_loop().create_future()
        call = Call(served, queries, request.k, future, label_filter, deadline, arrived)
        answer = await self._batcher.submit(call)
        return write_response(request, call, answer, config)

    def _count_failure(
        self, served: ServedVersion | None, method: str, error: BaseException, deadline: float
    ) -> None:
        if isinstance(error, Exception):
            code = status.code_of(error).name
            if code == "INTERNAL":
                logger.error("%s failed", method, exc_info=error)
        else:
            # gRPC cancels a call whose caller has left and one whose deadline has passed alike.
            code = "DEADLINE_EXCEEDED" if time.monotonic() >= deadline else "CANCELLED"
        if served is None:
            self._meters.requests.labels("", "", method, code).inc()
        else:
            served.meters.count_request(method, code)


async def _abort(context: Any, error: Exception) -> NoReturn:
    failure = rpc_status.to_status(status.status_of(error))
    await context.abort(failure.code, failure.details, failure.trailing_metadata)
    raise AssertionError("abort raises")


def _stream_error(error: Exception) -> pb.StreamError:
    return pb.StreamError(
        code=status.code_of(error).value[0],
        message=status.message_of(error),
        reason=status.reason_of(error),
        retry_after_s=status.retry_after_s_of(error),
    )


@final
class _Stream:
    """The requests of one stream that are under way, in their order.

    A caller who does not read his answers finds that his requests are not read either.
    """

    def __init__(self, max_requests: int) -> None:
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
        return await anext(requests, None)
