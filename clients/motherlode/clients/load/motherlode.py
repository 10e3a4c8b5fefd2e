"""Load in the protocol `motherlode.v1`."""

from __future__ import annotations

import asyncio
from typing import Any, final

import grpc
import grpc.aio

from motherlode.clients.channel import Tls, credentials_of, metadata_with
from motherlode.clients.errors import InvalidArgumentError
from motherlode.clients.load.protocol import OK, Answer
from motherlode.clients.queries import QueryBatch
from motherlode.clients.question import Question
from motherlode.clients.status import error_from_rpc
from motherlode.v1 import retrieval_pb2 as pb
from motherlode.v1 import retrieval_pb2_grpc

__all__ = ["MotherlodeProtocol"]

# Neither what is tried again nor a proxy is to be measured.
_OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    # Otherwise all channels to one address would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
]

_CANCELLED_S = 0.1


@final
class MotherlodeProtocol:
    """Calls of `RetrievalService.TopK`, ready-made.

    Args:
        target: HOST:PORT of the server.
        queries: What is asked, again from the start when all have been; what is left over after the
            last whole call is not asked.
        question: What is asked of each query.
        queries_per_call: Queries of each call.
        connections: Connections, which take turns.
        timeout_s: Seconds until a call has failed.
        tls: For encrypted connections.
        key: The caller's key.

    Raises:
        InvalidArgumentError: If there are fewer queries than one call takes; and see `Client`.
        OSError: If a file of `tls` cannot be read.
    """

    def __init__(  # noqa: PLR0913 - all but three have defaults
        self,
        target: str,
        queries: QueryBatch,
        question: Question,
        *,
        queries_per_call: int = 1,
        connections: int = 1,
        timeout_s: float = 10.0,
        tls: Tls | None = None,
        key: str | None = None,
    ) -> None:
        if len(queries) < queries_per_call:
            raise InvalidArgumentError.of_field(
                "queries",
                expected=f"at least the {queries_per_call} of a call",
                actual=len(queries),
            )
        self._target = target
        self._credentials = credentials_of(tls)
        self._metadata = metadata_with(key, (), target=target, is_encrypted=tls is not None)
        self._queries_per_call = queries_per_call
        self._connections = connections
        self._timeout_s = timeout_s
        starts = range(0, len(queries) - queries_per_call + 1, queries_per_call)
        self._requests = [
            question.request(queries.rows(start, start + queries_per_call)) for start in starts
        ]
        self._channels: list[grpc.aio.Channel] = []
        self._methods: list[Any] = []
        self._is_any_cancelled = False

    @property
    def queries_per_call(self) -> int:
        """Queries that each call asks."""
        return self._queries_per_call

    async def connect(self) -> str:
        """Opens all connections and makes one call on each; says what answered."""
        answered = ""
        for _ in range(self._connections):
            channel = self._open()
            self._channels.append(channel)
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]
            self._methods.append(stub.TopK)
            answered = await self._first_call(stub.TopK)
        return answered

    async def call(self, number: int) -> Answer:
        """Makes one call, and checks that each of its queries was answered."""
        method = self._methods[number % len(self._methods)]
        request = self._requests[number % len(self._requests)]
        try:
            response: pb.TopKResponse = await method(
                request, timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            return Answer(error.code().name, error.details() or "")
        except asyncio.CancelledError:
            self._is_any_cancelled = True
            raise
        if len(response.row_counts) != self._queries_per_call:
            told = f"{len(response.row_counts)} answers to {self._queries_per_call} queries"
            return Answer("WRONG_ANSWER", told)
        return Answer(OK)

    async def close(self) -> None:
        """Closes the connections; calls under way are cancelled."""
        for channel in self._channels:
            await channel.close()
        if self._is_any_cancelled:
            # gRPC tells of their end from a thread of its own, and complains where the event loop
            # is closed by then. There is nothing to wait for but time.
            await asyncio.sleep(_CANCELLED_S)

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, _OPTIONS)
        return grpc.aio.secure_channel(self._target, self._credentials, _OPTIONS)

    async def _first_call(self, method: Any) -> str:
        timeout_s = self._timeout_s
        try:
            response: pb.TopKResponse = await method(
                self._requests[0], timeout=timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, target=self._target, timeout_s=timeout_s) from error
        return f"{response.model}@{response.version}"
