"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, final

from numpy.typing import ArrayLike

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
from motherlode.clients.transport import GrpcTransport, Stream, Transport

__all__ = ["Client"]

Result = TypeVar("Result")


@final
class Client:
    """A connection to a server, for blocking calls from any number of threads.

    Use it as a context manager, or call `close`. Making one does not connect yet.

    Args:
        target: `HOST:PORT`, or any name that gRPC resolves; with several addresses the calls go
            round.
        timeout_s: Seconds that a call may take with all its parts, retries and pauses, unless it
            says otherwise.
        tls: For an encrypted connection; without it the connection is in clear text.
        key: The caller's key, sent with each call; without `tls`, to this machine alone.
        metadata: Sent with each call.
        options: Further gRPC channel options.
        transport: Used in place of a gRPC channel, for tests; then `target` is only a name.

    Raises:
        ValueError: If `timeout_s` is not a positive, finite number, or a file of `tls` is not what
            it should be, or the key would leave this machine in clear text.
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
        transport: Transport | None = None,
    ) -> None:
        self.target = target
        self._timeout_s = check_timeout(timeout_s)
        self._session = Session()
        self._transport = transport or GrpcTransport(
            target, tls=tls, key=key, metadata=metadata, options=options
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._transport.close()

    def top_k(
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
        """The best k labels of each query, all from one version of the model.

        A batch larger than the server takes is cut into parts by the server's own limits. Give the
        queries in one of the four ways.

        Args:
            queries: Texts, or a batch made by `query_batch`.
            k: Labels per query.
            embeddings: [B, D], queries as the model's encoder would give them.
            features: [B, F], dense features.
            sparse: Sparse features: a SciPy sparse matrix or `(indptr, indices, values)`.
            timeout_s: Seconds for the whole call; by default the client's.
            **options: See `QuestionOptions`: model, version, alias, allow, deny, label_fields.

        Raises:
            ClientError: See `motherlode.clients.errors`.
        """
        batch = query_batch(queries, embeddings=embeddings, features=features, sparse=sparse)
        question = Question(k=k, **options)
        return self._run(top_k_steps(self._session, batch, question, self._timeout(timeout_s)))

    def top_k_stream(
        self,
        batches: Iterable[Sequence[str] | QueryBatch],
        k: int = 10,
        *,
        timeout_s: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> Generator[TopKResult, None, None]:
        """One result per batch, in order, with several batches under way at a time.

        Each result is from one version; a later batch may be from a later one, unless a version is
        asked for. Batches are taken in the caller's thread, a few ahead of the results. Close the
        generator to stop early.

        Args:
            batches: Lists of texts, or batches made by `query_batch`.
            k: Labels per query.
            timeout_s: Seconds to wait for the answer to one batch; by default the client's.
            **options: As for `top_k`.

        Raises:
            ClientError: See `motherlode.clients.errors`. It ends the iteration.
        """
        question = Question(k=k, **options)
        steps = stream_steps(self._session, question, self._timeout(timeout_s))
        return self._run_stream(steps, iter(batches))

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """The server's limits and models."""
        return self._run(server_info_steps(self._session, self._timeout(timeout_s)))

    def health(self, model: str | None = None, *, timeout_s: float | None = None) -> HealthStatus:
        """Whether a model, or the whole server, is ready to answer; unknown if there is none."""
        return self._run(health_steps(health_service(model), self._timeout(timeout_s)))

    def _timeout(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else check_timeout(timeout_s)

    def _run(self, steps: Steps[Result]) -> Result:
        course = _Course(self._transport, iter(()))
        resume = partial(steps.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as stop:
                result: Result = stop.value
                return result
            resume = course.carry_out(step, steps)

    def _run_stream(
        self, steps: StreamSteps, batches: Iterator[Sequence[str] | QueryBatch]
    ) -> Generator[TopKResult, None, None]:
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
                resume = course.carry_out(step, steps)
        finally:
            course.close()


@final
class _Course:
    """Carries out the steps of one call or stream."""

    def __init__(self, transport: Transport, batches: Iterator[Sequence[str] | QueryBatch]) -> None:
        self._transport = transport
        self._batches = batches
        self._stream: Stream | None = None

    def carry_out(self, step: Step, steps: Any) -> Any:
        """Do one step; returns how to go on."""
        try:
            outcome = self._do(step)
        except ClientError as error:
            return partial(steps.throw, error)
        return partial(steps.send, outcome)

    def close(self) -> None:
        """End the stream, if one is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _do(self, step: Step) -> Any:
        match step:
            case Call():
                return self._transport.call(step)
            case Sleep():
                time.sleep(step.seconds)
            case Pull():
                return next(self._batches, None)
            case Send():
                self._stream = self._stream or self._transport.open_stream()
                self._stream.send(step.message)
            case Receive() if self._stream is not None:
                return self._stream.receive(step.timeout_s)
            case Finish() if self._stream is not None:
                self._stream.finish()
            case Drop():
                self.close()
        return None
