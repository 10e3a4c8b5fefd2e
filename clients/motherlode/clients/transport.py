"""What lies below the blocking clients: the only module of theirs that opens channels of gRPC."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, final

import grpc

from motherlode.clients.channel import (
    Metadata,
    Tls,
    channel_options,
    credentials_of,
    metadata_with,
    methods_of,
)
from motherlode.clients.errors import ClientError, DeadlineError, ServerError
from motherlode.clients.status import error_from_rpc
from motherlode.clients.steps import Call
from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["BlockingChannel", "GrpcTransport", "Stream", "Transport"]


class Stream(Protocol):
    """One open stream of batches."""

    def send(self, message: pb.TopKStreamRequest) -> None:
        """Queue a message; never blocks, never fails."""

    def receive(self, timeout_s: float) -> pb.TopKStreamResponse:
        """The next message.

        Raises:
            ClientError: If the stream broke or nothing came in time.
        """

    def finish(self) -> None:
        """Say that no message follows."""

    def close(self) -> None:
        """End the stream, whatever is under way."""


class Transport(Protocol):
    """Where a client's calls go; bring your own to test code that uses a client."""

    def call(self, call: Call) -> Any:
        """The answer to one call.

        Raises:
            ClientError: If there is none.
        """

    def open_stream(self) -> Stream:
        """A new stream of batches."""

    def close(self) -> None:
        """Let go of the connection."""


@final
class BlockingChannel:
    """A channel of gRPC and what every call over it has; thread-safe. It is made as a `Client` is.

    Attributes:
        target: As given.
        channel: For generated code.
        metadata: Of each call, the key among it.
    """

    def __init__(
        self,
        target: str,
        options: Sequence[tuple[str, Any]],
        *,
        tls: Tls | None,
        key: str | None,
        metadata: Metadata,
    ) -> None:
        credentials = credentials_of(tls)
        self.target = target
        self.metadata = metadata_with(
            key, metadata, target=target, is_encrypted=credentials is not None
        )
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options)

    def call(self, method: Any, request: Any, timeout_s: float) -> Any:
        """The answer of a method of the channel.

        Raises:
            ClientError: If there is none.
        """
        try:
            return method(request, timeout=timeout_s, metadata=self.metadata)
        except grpc.RpcError as error:
            raise error_from_rpc(error, target=self.target, timeout_s=timeout_s) from error

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self.channel.close()


@final
class GrpcTransport:
    """Calls over one gRPC channel; thread-safe."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        key: str | None = None,
        metadata: Metadata = (),
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._channel = BlockingChannel(
            target, channel_options(options), tls=tls, key=key, metadata=metadata
        )
        self._methods = methods_of(self._channel.channel)

    def call(self, call: Call) -> Any:
        """The answer to one call."""
        return self._channel.call(self._methods[call.method], call.request, call.timeout_s)

    def open_stream(self) -> Stream:
        """A new stream of batches."""
        channel = self._channel
        return _GrpcStream(self._methods["TopKStream"], channel.metadata, channel.target)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()


@final
class _GrpcStream:
    """A stream whose reader is a thread of its own, since gRPC's iterator waits without a limit."""

    def __init__(self, method: Any, metadata: Metadata, target: str) -> None:
        self._target = target
        self._requests: queue.SimpleQueue[pb.TopKStreamRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[pb.TopKStreamResponse | ClientError] = queue.SimpleQueue()
        self._call = method(iter(self._requests.get, None), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="top-k-stream", daemon=True)
        self._reader.start()

    def send(self, message: pb.TopKStreamRequest) -> None:
        """Queue a message."""
        self._requests.put(message)

    def receive(self, timeout_s: float) -> pb.TopKStreamResponse:
        """The next message."""
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise DeadlineError(f"no answer from {self._target} within {timeout_s:.3g} s") from None
        if isinstance(answer, ClientError):
            raise answer
        return answer

    def finish(self) -> None:
        """Say that no message follows."""
        self._requests.put(None)

    def close(self) -> None:
        """End the stream and its threads."""
        self._requests.put(None)
        self._call.cancel()
        self._reader.join()

    def _read(self) -> None:
        answers: Iterator[pb.TopKStreamResponse] = self._call
        try:
            for answer in answers:
                self._answers.put(answer)
        except grpc.RpcError as error:
            self._answers.put(error_from_rpc(error, target=self._target))
        else:
            # Reached only if the caller waits for more answers than it sent batches.
            self._answers.put(
                ServerError(f"{self._target} ended the stream before its last answer")
            )
