"""The course of a stream of batches, without any input or output; see `steps`.

Requests run a few batches ahead of the answers. A batch that cannot go through the stream (it is
too large for one message, the server was too busy, the connection broke) is asked in its turn by
ordinary calls, which split and retry; so the answers keep the order of the batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, final

from motherlode.clients.answers import decode, join
from motherlode.clients.errors import OverloadedError, TooLargeError, UnavailableError
from motherlode.clients.queries import QueryBatch, query_batch
from motherlode.clients.question import Question
from motherlode.clients.result import TopKResult
from motherlode.clients.split import Splitter
from motherlode.clients.status import error_from_status
from motherlode.clients.steps import Call, Session, Sleep, server_info_steps, top_k_steps
from motherlode.v1 import retrieval_pb2 as pb

__all__ = ["Drop", "Emit", "Finish", "Pull", "Receive", "Send", "StreamSteps", "stream_steps"]

# Enough to keep the server busy while answers travel, few enough to hold in memory.
WINDOW_BATCHES = 8


@final
@dataclass(frozen=True, slots=True)
class Pull:
    """Send back the caller's next batch, or None if there is no more."""


@final
@dataclass(frozen=True, slots=True)
class Emit:
    """Give the caller the next result."""

    result: TopKResult


@final
@dataclass(frozen=True, slots=True)
class Send:
    """Put a message into the stream, which is opened if there is none.

    Whether it arrives shows at `Receive`.
    """

    message: pb.TopKStreamRequest


@final
@dataclass(frozen=True, slots=True)
class Receive:
    """Send back the stream's next message."""

    timeout_s: float


@final
@dataclass(frozen=True, slots=True)
class Finish:
    """Tell the server that no message follows, if a stream is open."""


@final
@dataclass(frozen=True, slots=True)
class Drop:
    """Forget a stream that broke."""


Step = Call | Sleep | Pull | Emit | Send | Receive | Finish | Drop
StreamSteps = Generator[Step, Any, None]


@final
@dataclass(frozen=True, slots=True)
class _Sent:
    queries: QueryBatch
    sent_s: float


def stream_steps(session: Session, question: Question, timeout_s: float) -> StreamSteps:
    """Ask for the top k of each batch that the caller has; `timeout_s` is for each answer."""
    if session.limits is None:
        yield from server_info_steps(session, timeout_s)
    pending: deque[_Sent] = deque()
    while (given := (yield Pull())) is not None:
        queries = query_batch(given)
        if not _fits(session, queries, question):
            while pending:
                yield from _emit_next(session, question, timeout_s, pending)
            yield from _emit_by_call(session, queries, question, timeout_s)
            continue
        yield Send(pb.TopKStreamRequest(request=question.request(queries)))
        pending.append(_Sent(queries, session.clock()))
        if len(pending) >= WINDOW_BATCHES:
            yield from _emit_next(session, question, timeout_s, pending)
    yield Finish()
    while pending:
        yield from _emit_next(session, question, timeout_s, pending)


def _fits(session: Session, queries: QueryBatch, question: Question) -> bool:
    return Splitter(queries, question, session.limits).stop(0) == len(queries)


def _emit_next(
    session: Session, question: Question, timeout_s: float, pending: deque[_Sent]
) -> StreamSteps:
    try:
        message: pb.TopKStreamResponse = yield Receive(timeout_s)
    except UnavailableError:
        # A server that is replaced closes its streams; calls find its successor.
        yield Drop()
        while pending:
            yield from _emit_by_call(session, pending.popleft().queries, question, timeout_s)
        return
    sent = pending.popleft()
    if message.HasField("response"):
        answer = decode(message.response, num_queries=len(sent.queries), question=question)
        round_trip_s = session.clock() - sent.sent_s
        yield Emit(join([answer], question=question, round_trip_s=round_trip_s))
        return
    fault = message.error
    error = error_from_status(
        fault.code,
        fault.message,
        reason=fault.reason,
        retry_after_s=fault.retry_after_s,
        request_id=fault.request_id,
    )
    if not isinstance(error, OverloadedError | UnavailableError | TooLargeError):
        raise error
    yield from _emit_by_call(session, sent.queries, question, timeout_s)


def _emit_by_call(
    session: Session, queries: QueryBatch, question: Question, timeout_s: float
) -> StreamSteps:
    yield Emit((yield from top_k_steps(session, queries, question, timeout_s)))
