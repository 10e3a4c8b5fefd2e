"""What lies below the asyncio client: the only module of it that knows gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, final

import grpc
import grpc.aio

from motherlode.clients.channel import (
    Metadata,
    Tls,
    channel_options,
    credentials_of,
    metadata_with,
    methods_of,
)
from motherlode.clients.errors import DeadlineError, ServerError, UnavailableError
from motherlode.clients.status import error_from_rpc
from motherlode.clients.steps import Call
from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["AsyncGrpcTransport", "AsyncStream", "AsyncTransport"]

# A write into a stream that the server has just ended makes grpc.aio put this in place of the
# status that the server gave.
_WRITE_FAILED = "Internal error from Core"


class AsyncStream(Protocol):
    """One open stream of batches."""

    def send(self, message: pb.TopKStreamRequest) -> None:
        """Queue a message; never waits, never fails."""

    async def receive(self, timeout_s: float) -> pb.TopKStreamResponse:
        """The next message.

        Raises:
            ClientError: If the stream broke or nothing came in time.
        """

    def finish(self) -> None:
        """Say that no message follows."""

    def close(self) -> None:
        """End the stream, whatever is under way."""


class AsyncTransport(Protocol):
    """Where an asyncio client's calls go; bring your own to test code that uses a client."""

    async def call(self, call: Call) -> Any:
        """The answer to one call.

        Raises:
            ClientError: If there is none.
        """

    def open_stream(self) -> AsyncStream:
        """A new stream of batches."""

    async def close(self) -> None:
        """Let go of the connection."""


@final
class AsyncGrpcTransport:
    """Calls over one grpc.aio channel, within one event loop."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        key: str | None = None,
        metadata: Metadata = (),
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._target = target
        credentials = credentials_of(tls)
        self._metadata = metadata_with(
            key, metadata, target=target, is_encrypted=credentials is not None
        )
        all_options = channel_options(options)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, all_options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, all_options)
        self._methods = methods_of(self._channel)

    async def call(self, call: Call) -> Any:
        """The answer to one call."""
        method = self._methods[call.method]
        try:
            return await method(call.request, timeout=call.timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, target=self._target, timeout_s=call.timeout_s) from error

    def open_stream(self) -> AsyncStream:
        """A new stream of batches."""
        return _AsyncGrpcStream(self._methods["TopKStream"], self._metadata, self._target)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()


@final
class _AsyncGrpcStream:
    def __init__(self, method: Any, metadata: Metadata, target: str) -> None:
        self._target = target
        # gRPC takes from this queue in a task of its own. Writing from here could wait for a server
        # that itself waits for its answers to be read.
        self._requests: asyncio.Queue[pb.TopKStreamRequest | None] = asyncio.Queue()
        self._call = method(self._messages(), metadata=metadata)

    def send(self, message: pb.TopKStreamRequest) -> None:
        """Queue a message."""
        self._requests.put_nowait(message)

    async def receive(self, timeout_s: float) -> pb.TopKStreamResponse:
        """The next message."""
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if error.details() == _WRITE_FAILED:
                raise UnavailableError(f"the stream to {self._target} broke") from error
            raise error_from_rpc(error, target=self._target) from error
        except TimeoutError:
            raise DeadlineError(f"no answer from {self._target} within {timeout_s:.3g} s") from None
        if answer is grpc.aio.EOF:
            raise ServerError(f"{self._target} ended the stream before its last answer")
        message: pb.TopKStreamResponse = answer
        return message

    def finish(self) -> None:
        """Say that no message follows."""
        self._requests.put_nowait(None)

    def close(self) -> None:
        """End the stream."""
        self._requests.put_nowait(None)
        self._call.cancel()

    async def _messages(self) -> AsyncIterator[pb.TopKStreamRequest]:
        while (message := await self._requests.get()) is not None:
            yield message
