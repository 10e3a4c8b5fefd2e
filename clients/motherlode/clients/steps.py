"""The course of a call, without any input or output.

Each function here is a generator that yields what is to be done (`Call`, `Sleep`, ...) and is sent
what came of it, or thrown the `ClientError` that it ended in. The blocking and the asyncio client
only carry the steps out, so they cannot differ.

A batch that was split is answered by one version: the parts after the first ask for the version
that answered the first. If that version goes away in between, or a replica behind the same address
holds another bundle under its number, the whole batch starts again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, final

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from motherlode.clients.answers import Answer, decode, join
from motherlode.clients.errors import (
    ClientError,
    DeadlineError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
    VersionChangedError,
)
from motherlode.clients.info import HealthStatus, Limits, ServerInfo, server_info_from
from motherlode.clients.queries import QueryBatch
from motherlode.clients.question import Question
from motherlode.clients.result import TopKResult
from motherlode.clients.split import Splitter
from motherlode.v1 import retrieval_pb2 as pb

__all__ = [
    "Call",
    "Deadline",
    "Session",
    "Sleep",
    "Steps",
    "check_timeout",
    "health_steps",
    "server_info_steps",
    "top_k_steps",
]

MAX_RESTARTS = 5
_MIN_PAUSE_S = 0.005

_HEALTH: dict[int, HealthStatus] = {1: "serving", 2: "not_serving"}

Result = TypeVar("Result")


@final
@dataclass(frozen=True, slots=True)
class Call:
    """Call a method and send back its answer."""

    method: Literal["TopK", "GetServerInfo", "Check"]
    request: Any
    timeout_s: float


@final
@dataclass(frozen=True, slots=True)
class Sleep:
    """Let some time pass."""

    seconds: float


Steps = Generator[Call | Sleep, Any, Result]


@final
@dataclass(slots=True)
class Session:
    """What the calls of one client share.

    Attributes:
        limits: The server's limits, once they are known.
        clock: Seconds that only go up.
        random: For pauses that do not bring all callers back at once.
    """

    limits: Limits | None = None
    clock: Callable[[], float] = time.monotonic
    random: random.Random = field(default_factory=random.Random)


def check_timeout(timeout_s: float) -> float:
    """The timeout itself; there is no call without one.

    Raises:
        ValueError: If it is not a positive, finite number.
    """
    if not 0 < timeout_s < float("inf"):
        raise ValueError(f"timeout_s: expected a positive number of seconds, got {timeout_s}")
    return timeout_s


@final
class Deadline:
    """The end of the time that a call may take, all its parts and pauses together."""

    def __init__(self, session: Session, timeout_s: float) -> None:
        """Start to count."""
        self._clock = session.clock
        self._started_s = session.clock()
        self._timeout_s = timeout_s

    @property
    def passed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started_s

    @property
    def left_s(self) -> float:
        """Seconds that are left, more than 0.

        Raises:
            DeadlineError: If none are.
        """
        left_s = self._timeout_s - self.passed_s
        if left_s <= 0:
            raise DeadlineError(f"no answer within {self._timeout_s:.3g} s")
        return left_s


@final
class _MovedError(Exception):
    """The version that answered the first part no longer answers."""


def top_k_steps(
    session: Session, queries: QueryBatch, question: Question, timeout_s: float
) -> Steps[TopKResult]:
    """Ask for the top k of a batch, in as many calls as it takes."""
    deadline = Deadline(session, timeout_s)
    for _ in range(MAX_RESTARTS):
        try:
            answers = yield from _ask_parts(session, queries, question, deadline)
        except _MovedError:
            continue
        return join(answers, question=question, round_trip_s=deadline.passed_s)
    raise VersionChangedError(
        f"the serving version changed in each of {MAX_RESTARTS} attempts to answer"
        f" {len(queries)} queries from one version; ask for a version, or for fewer queries"
    )


def _ask_parts(
    session: Session, queries: QueryBatch, question: Question, deadline: Deadline
) -> Steps[list[Answer]]:
    if len(queries) == 1:
        # It cannot be cut, so the server's limits need not be known.
        return [(yield from _ask_part(session, queries, question, [], deadline))]
    if session.limits is None:
        yield from server_info_steps(session, deadline.left_s)
    splitter = Splitter(queries, question, session.limits)
    answers: list[Answer] = []
    start = 0
    while start < len(queries):
        stop = splitter.stop(start)
        part = queries.rows(start, stop)
        try:
            answers.append((yield from _ask_part(session, part, question, answers, deadline)))
        except TooLargeError:
            session.limits = None
            if stop - start == 1:
                raise
            splitter.halve(stop - start)
            continue
        except ClientError as error:
            if stop - start < len(queries):
                error.queries = start, stop
            raise
        start = stop
    return answers


def _ask_part(
    session: Session,
    part: QueryBatch,
    question: Question,
    earlier: list[Answer],
    deadline: Deadline,
) -> Steps[Answer]:
    """Ask one part of the version that answered the earlier ones.

    Raises:
        _MovedError: If that version is not there any more.
    """
    pinned_version = earlier[0].source[0] if earlier else None
    request = question.request(part, pinned_version=pinned_version)
    try:
        message = yield from _ask(session, request, deadline)
    except NotFoundError as error:
        if earlier and question.version is None:
            raise _MovedError from error
        raise
    answer = decode(message, num_queries=len(part), question=question)
    if earlier and answer.source != earlier[0].source:
        raise _MovedError
    return answer


def _ask(session: Session, request: pb.TopKRequest, deadline: Deadline) -> Steps[pb.TopKResponse]:
    """One answer; a full queue is tried again if the server says when and there is time."""
    while True:
        try:
            message: pb.TopKResponse = yield Call("TopK", request, deadline.left_s)
        except OverloadedError as error:
            if error.retry_after_s is None:
                raise
            pause_s = max(error.retry_after_s, _MIN_PAUSE_S) * session.random.uniform(1.0, 1.5)
            if pause_s >= deadline.left_s:
                raise
            yield Sleep(pause_s)
        else:
            return message


def server_info_steps(session: Session, timeout_s: float) -> Steps[ServerInfo]:
    """Ask the server about itself and note its limits."""
    message = yield Call("GetServerInfo", pb.GetServerInfoRequest(), timeout_s)
    info = server_info_from(message)
    session.limits = info.limits
    return info


def health_steps(service: str, timeout_s: float) -> Steps[HealthStatus]:
    """Ask for the health of a service by its name in `grpc.health.v1`."""
    # The two messages of that protocol have one field each, so these look the same on the wire and
    # spare the client a dependency.
    try:
        status: Int32Value = yield Call("Check", StringValue(value=service), timeout_s)
    except NotFoundError:
        return "unknown"
    return _HEALTH.get(status.value, "unknown")
