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
from motherlode.server import status
from motherlode.server.batcher import Batcher
from motherlode.server.call import Answer, Call
from motherlode.server.config import ServerConfig
from motherlode.server.limits import held_bytes
from motherlode.server.metrics import Meters
from motherlode.server.slot import Catalog, ServedVersion

logger = logging.getLogger(__name__)

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

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
class Reception:
    """Takes calls of every protocol, and knows which are under way.

    Attributes:
        refusal: Why new calls are refused now; None while they are taken.
        draining: Set once `drain` was called.
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
        arrived = time.monotonic()
        longest_s = self._config.max_call_s
        deadline = arrived + (longest_s if remaining_s is None else min(remaining_s, longest_s))
        served: ServedVersion | None = None
        self._num_in_flight += 1
        self._idle.clear()
        try:
            served = self._admit(request, dialect)
            served.begin_call()
            response = await self._ask(
                request, dialect, served, arrived, deadline, caller, is_patient=is_patient
            )
            served.meters.observe_request(method, time.monotonic() - arrived)
            return response
        except BaseException as error:
            self._count_failure(served, method, error, arrived, deadline)
            raise
        finally:
            if served is not None:
                served.end_call()
            self._num_in_flight -= 1
            if not self._num_in_flight:
                self._idle.set()

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
        arrived: float,
        deadline: float,
        caller: str,
        *,
        is_patient: bool,
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
            deadline,
            arrived,
            caller,
            is_patient,
            held_bytes(asked.queries, asked.filter),
        )
        answer = await self._batcher.submit(call)
        found = time.monotonic()
        response = dialect.write(request, call, answer, config)
        now = time.monotonic()
        served.statistics.add_answer(
            len(asked.queries),
            answer.times,
            queue_s=answer.queue_s,
            writing_s=now - found,
            duration_s=now - arrived,
        )
        return response

    def _count_failure(
        self,
        served: ServedVersion | None,
        method: str,
        error: BaseException,
        arrived: float,
        deadline: float,
    ) -> None:
        now = time.monotonic()
        if isinstance(error, Exception):
            code = status.code_of(error).name
            if code == "INTERNAL":
                logger.error("%s failed", method, exc_info=error)
        else:
            # gRPC cancels a call whose caller has left and one whose deadline has passed alike, and
            # the caller's clock started before ours.
            code = "DEADLINE_EXCEEDED" if now >= deadline - _HEAD_START_S else "CANCELLED"
        if served is None:
            self._meters.requests.labels("", "", method, code).inc()
        else:
            served.meters.count_request(method, code)
            served.statistics.failed.add(now - arrived)
