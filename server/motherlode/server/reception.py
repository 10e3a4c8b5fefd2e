"""The way of a call through the server, the same for every protocol.

It is admitted or refused, given its version, read, queued, answered and counted. What differs from
protocol to protocol is in its `Dialect`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from motherlode.core.errors import UnavailableError
from motherlode.core.index import LabelFilter
from motherlode.core.queries import Queries
from motherlode.core.retriever import Retriever
from motherlode.server import correlation, status
from motherlode.server.batcher import Batcher
from motherlode.server.call import Answer, Call
from motherlode.server.config import ServerConfig
from motherlode.server.limits import held_bytes
from motherlode.server.metrics import Meters
from motherlode.server.slot import Catalog, ServedVersion
from motherlode.server.witness import Witness

logger = logging.getLogger(__name__)

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

# Whose requests are answered here, and so counted.
_METHODS = frozenset({"TopK", "TopKStream", "ModelInfer"})
# By which a caller's deadline may come before the same deadline here: the way of the request.
_HEAD_START_S = 0.05


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, checked.

    Attributes:
        queries: At least one.
        k: Hits wanted per query.
        filter: Labels that may be returned; None for all.
    """

    queries: Queries
    k: int
    filter: LabelFilter | None = None


@final
@dataclass(frozen=True, slots=True)
class Dialect(Generic[RequestT, ResponseT]):
    """How one protocol words a request and its answer.

    Attributes:
        choose: The version that a request asks for.
        read: What it asks for, checked against that version and the server's limits.
        write: The answer as a message.
        is_slow: Whether to read it would keep the event loop from others.
    """

    choose: Callable[[RequestT, Catalog], ServedVersion]
    read: Callable[[RequestT, Retriever, ServerConfig], Asked]
    write: Callable[[RequestT, Call, Answer, ServerConfig], ResponseT]
    is_slow: Callable[[RequestT], bool]


@final
@dataclass(slots=True)
class _Arrival:
    """One call as it came.

    Attributes:
        method: Its name in the metrics.
        at: `time.monotonic` when it came.
        deadline: `time.monotonic` after which nobody waits for the answer.
        caller: Who asks.
        is_patient: Whether it rather waits than be refused for a long wait.
    """

    method: str
    at: float
    deadline: float
    caller: str
    is_patient: bool


@final
class Reception:
    """Takes calls of every protocol, and knows which are under way.

    Attributes:
        refusal: Why new calls are refused now; None while they are taken.
        draining: Set once `drain` was called.
        witness: Sees each call when it is done.
    """

    def __init__(
        self, config: ServerConfig, catalog: Catalog, batcher: Batcher, meters: Meters
    ) -> None:
        self.witness = Witness(config.slow_call_s)
        self._config = config
        self._catalog = catalog
        self._batcher = batcher
        self._meters = meters
        self._num_in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = asyncio.Event()
        self.refusal: UnavailableError | None = UnavailableError(
            "the server is starting", reason="STARTING"
        )
        meters.in_flight.set_function(lambda: self._num_in_flight)

    def drain(self) -> None:
        """Refuses new calls from now on; those under way are answered."""
        self.refusal = UnavailableError("the server is stopping", reason="DRAINING")
        self.draining.set()

    async def wait_idle(self) -> None:
        """Returns when no call is under way."""
        await self._idle.wait()

    async def answer(
        self,
        request: RequestT,
        dialect: Dialect[RequestT, ResponseT],
        method: str,
        remaining_s: float | None,
        caller: str,
        *,
        is_patient: bool = False,
    ) -> ResponseT:
        """The answer to a request.

        Args:
            request: As it came.
            dialect: Its protocol.
            method: Its name in the metrics.
            remaining_s: Seconds until its deadline; None where it has none.
            caller: Who asks; the server is shared fairly among callers.
            is_patient: Whether it rather waits than be refused for a long wait.

        Raises:
            Exception: Whatever `status` has a row for, and what nobody foresaw; it is counted.
        """
        now, longest_s = time.monotonic(), self._config.max_call_s
        deadline = now + (longest_s if remaining_s is None else min(remaining_s, longest_s))
        arrival = _Arrival(method, now, deadline, caller, is_patient)
        served: ServedVersion | None = None
        self._num_in_flight += 1
        self._idle.clear()
        try:
            served = self._admit(request, dialect)
            served.begin_call()
            response = await self._ask(request, dialect, served, arrival)
            served.meters.observe_request(method, time.monotonic() - now)
            return response
        except BaseException as error:
            self._count_failure(served, error, arrival)
            raise
        finally:
            if served is not None:
                served.end_call()
            self._num_in_flight -= 1
            if not self._num_in_flight:
                self._idle.set()

    def count_unread(self, method: str, error: Exception) -> None:
        """Counts a request that did not come here, as its bytes could not be read.

        Args:
            method: Its name; of one whose requests are not answered here nothing is counted.
            error: What the caller is told.
        """
        if method in _METHODS:
            now = time.monotonic()
            self._count_failure(None, error, _Arrival(method, now, now, "", is_patient=False))

    def _admit(self, request: RequestT, dialect: Dialect[RequestT, ResponseT]) -> ServedVersion:
        if self.refusal is not None:
            self._meters.rejected.labels(self.refusal.reason.lower()).inc()
            raise self.refusal
        return dialect.choose(request, self._catalog)

    async def _ask(
        self,
        request: RequestT,
        dialect: Dialect[RequestT, ResponseT],
        served: ServedVersion,
        arrival: _Arrival,
    ) -> ResponseT:
        retriever, config = served.retriever, self._config
        if dialect.is_slow(request):
            asked = await asyncio.to_thread(dialect.read, request, retriever, config)
        else:
            asked = dialect.read(request, retriever, config)
        future = asyncio.get_running_loop().create_future()
        call = Call(
            served,
            asked.queries,
            asked.k,
            future,
            asked.filter,
            arrival.deadline,
            arrival.at,
            arrival.caller,
            arrival.is_patient,
            held_bytes(asked.queries, asked.filter),
            correlation.current().request_id,
        )
        answer = await self._batcher.submit(call)
        found = time.monotonic()
        response = dialect.write(request, call, answer, config)
        now = time.monotonic()
        duration_s = now - arrival.at
        served.statistics.add_answer(
            len(asked.queries),
            answer.times,
            queue_s=answer.queue_s,
            writing_s=now - found,
            duration_s=duration_s,
        )
        served.meters.observe_stage("write", now - found)
        self.witness.answered(arrival.method, call, answer, duration_s)
        return response

    def _count_failure(
        self,
        served: ServedVersion | None,
        error: BaseException,
        arrival: _Arrival,
    ) -> None:
        now, method = time.monotonic(), arrival.method
        if isinstance(error, Exception):
            code = status.code_of(error).name
            if code == "INTERNAL":
                logger.error("%s failed", method, exc_info=error)
        else:
            # gRPC cancels a call whose caller has left and one whose deadline has passed alike, and
            # the caller's clock started before ours.
            code = "DEADLINE_EXCEEDED" if now >= arrival.deadline - _HEAD_START_S else "CANCELLED"
        self.witness.failed(method, code, served, error, now - arrival.at)
        if served is None:
            self._meters.requests.labels("", "", method, code).inc()
        else:
            served.meters.count_request(method, code)
            served.statistics.failed.add(now - arrival.at)
            served.statistics.num_faults += code == "INTERNAL"
