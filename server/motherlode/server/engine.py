"""The one thread that encodes and searches.

It takes a batch, runs it, and hands all outcomes back to the event loop in one hop. Nothing that a
batch does can end the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import final

from motherlode.core.errors import MotherlodeError
from motherlode.core.index import LabelFilter
from motherlode.core.queries import Queries, concatenate
from motherlode.core.query_path import StageTimes
from motherlode.core.topk import TopK
from motherlode.server.slot import ServedVersion

logger = logging.getLogger(__name__)


@final
class InternalError(MotherlodeError):
    """Something failed that nobody foresaw; the log has the traceback, the caller no detail."""


@final
class ExpiredError(MotherlodeError):
    """The call's deadline passed before it ran."""


@final
@dataclass(slots=True, eq=False)
class Answer:
    """What one call gets.

    Attributes:
        top: Its hits.
        queue_s: Its wait.
        times: Times of the batch that it ran in.
    """

    top: TopK
    queue_s: float
    times: StageTimes


@final
@dataclass(slots=True, eq=False)
class Call:
    """One request in the queue, checked and ready to run.

    Attributes:
        served: The version that answers it.
        queries: What is asked.
        k: Hits wanted per query.
        future: Where the answer goes; cancelled by a caller who left.
        filter: Labels that may be returned.
        deadline: `time.monotonic` after which nobody waits for the answer.
        arrived: `time.monotonic` at the arrival.
    """

    served: ServedVersion
    queries: Queries
    k: int
    future: asyncio.Future[Answer]
    filter: LabelFilter | None = None
    deadline: float = float("inf")
    arrived: float = field(default_factory=time.monotonic)


@final
@dataclass(slots=True, eq=False)
class Batch:
    """Calls of one version, kind, k and filter that run together.

    Attributes:
        calls: Not empty.
        outcomes: An answer or an error per call, once it ran.
        started: `time.monotonic` when the engine took it.
        stopped: `time.monotonic` when it was done.
    """

    calls: Sequence[Call]
    outcomes: list[Answer | BaseException] = field(default_factory=list)
    times: StageTimes = field(default_factory=StageTimes)
    started: float = 0.0
    stopped: float = 0.0

    @property
    def num_queries(self) -> int:
        """Queries of all calls."""
        return sum(len(call.queries) for call in self.calls)

    def run(self) -> None:
        """Fills `outcomes`; raises nothing, whatever happens."""
        self.started = time.monotonic()
        try:
            self.outcomes = list(self._answers(self.calls))
        except BaseException as error:
            self.outcomes = self._recover(error)
        self.stopped = time.monotonic()

    def _answers(self, calls: Sequence[Call]) -> list[Answer]:
        first = calls[0]
        top = first.served.retriever.top_k(
            concatenate([call.queries for call in calls]),
            first.k,
            filter=first.filter,
            times=self.times,
        )
        if len(calls) == 1:
            return [Answer(top, self.started - first.arrived, self.times)]
        return self._split(top, calls)

    def _split(self, top: TopK, calls: Sequence[Call]) -> list[Answer]:
        offsets = top.offsets.tolist()
        answers, row = [], 0
        for call in calls:
            end = row + len(call.queries)
            hits = slice(offsets[row], offsets[end])
            part = TopK(top.labels[hits], top.scores[hits], top.counts[row:end])
            answers.append(Answer(part, self.started - call.arrived, self.times))
            row = end
        return answers

    def _recover(self, error: BaseException) -> list[Answer | BaseException]:
        """Runs the calls one by one, so that only those fail that cannot be answered."""
        if len(self.calls) == 1:
            return [_as_outcome(error)]
        logger.warning("a batch of %d calls failed; running them one by one", len(self.calls))
        return [self._run_alone(call) for call in self.calls]

    def _run_alone(self, call: Call) -> Answer | BaseException:
        try:
            return self._answers([call])[0]
        except BaseException as error:
            return _as_outcome(error)


def _as_outcome(error: BaseException) -> BaseException:
    if isinstance(error, MotherlodeError):
        return error
    logger.error("a call failed", exc_info=error)
    return InternalError("internal error")


@final
class Engine:
    """The thread and its inbox.

    Args:
        done: Called in the event loop's thread with each batch that ran.
    """

    def __init__(self, done: Callable[[Batch], None]) -> None:
        self._done = done
        self._inbox: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread; to be called in the running event loop."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, args=(loop,), name="motherlode-engine", daemon=True
        )
        self._thread.start()

    def run(self, batch: Batch) -> None:
        """Hands a batch to the thread and returns at once."""
        self._inbox.put(batch)

    @property
    def is_running(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout_s: float | None = None) -> None:
        """Ends the thread after the batches that it was given; waits for that, but not for ever."""
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (batch := self._inbox.get()) is not None:
            batch.run()
            try:
                loop.call_soon_threadsafe(self._done, batch)
            except RuntimeError:
                logger.warning("the server stopped before a batch of %d", len(batch.calls))
                return
            # Idle for hours, the thread must not keep a version in memory that was retired.
            del batch
