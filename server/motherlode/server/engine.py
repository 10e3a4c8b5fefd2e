"""The one thread that encodes and searches.

It takes a batch, runs it, and hands all outcomes back to the event loop in one hop. Nothing that a
batch does can end the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.errors import MotherlodeError
from motherlode.core.queries import concatenate
from motherlode.core.query_path import StageTimes
from motherlode.core.query_rows import StillWanted
from motherlode.core.topk import TopK
from motherlode.server.call import Answer, Call, ExpiredError, InternalError, Part

logger = logging.getLogger(__name__)


# The hits of a part's call where it was the last one; None where more parts follow.
Outcome = Answer | BaseException | None


@final
@dataclass(slots=True, eq=False)
class Batch:
    """Parts of calls of one group that run together.

    Attributes:
        parts: Not empty; at most one of each call.
        outcomes: What came of each part, once it ran.
        dropped: Why parts were taken out right before the search: `cancelled`, `expired`, or `done`
            where an earlier part of the call failed.
        started: `time.monotonic` when the engine took it.
        stopped: `time.monotonic` when it was done.
    """

    parts: Sequence[Part]
    outcomes: list[Outcome] = field(default_factory=list)
    dropped: dict[Part, str] = field(default_factory=dict)
    times: StageTimes = field(default_factory=StageTimes)
    started: float = 0.0
    stopped: float = 0.0

    @property
    def num_queries(self) -> int:
        """Queries of all parts."""
        return sum(map(len, self.parts))

    def run(self, *, drop_lost: bool = True) -> None:
        """Fills `outcomes`; raises nothing, whatever happens.

        Args:
            drop_lost: Whether to look for calls that nobody waits for right before the search.
        """
        self.started = time.monotonic()
        found: Sequence[TopK | BaseException]
        try:
            found = self._top_k(self.parts, self._still_wanted if drop_lost else None)
        except BaseException as error:
            found = self._recover(error)
        self.outcomes = list(map(self._outcome, self.parts, found))
        self.stopped = time.monotonic()

    def _top_k(self, parts: Sequence[Part], still_wanted: StillWanted | None) -> list[TopK]:
        first = parts[0].call
        top = first.served.retriever.top_k(
            concatenate([part.queries for part in parts]),
            first.k,
            filter=first.filter,
            times=self.times,
            still_wanted=still_wanted,
        )
        return [top] if len(parts) == 1 else list(_split(top, parts))

    def _still_wanted(self) -> NDArray[np.bool_] | None:
        now = time.monotonic()
        for part in self.parts:
            if reason := part.call.lost_reason(now):
                self.dropped[part] = reason
        if not self.dropped:
            return None
        is_kept = [part not in self.dropped for part in self.parts]
        return np.repeat(is_kept, [len(part) for part in self.parts])

    def _outcome(self, part: Part, found: TopK | BaseException) -> Outcome:
        if part in self.dropped:
            return ExpiredError("search")
        if isinstance(found, BaseException):
            return found
        try:
            answer = part.call.add(found, self.started, self.times, is_last=part.is_last)
        except BaseException as error:
            return _as_outcome(error, part.call)
        if answer is not None:
            answer.batch_size = self.num_queries
        return answer

    def _recover(self, error: BaseException) -> list[TopK | BaseException]:
        """Runs the parts one by one, so that only those fail that cannot be answered."""
        if len(self.parts) == 1:
            return [_as_outcome(error, self.parts[0].call)]
        logger.warning("a batch of %d calls failed; running them one by one", len(self.parts))
        return [self._run_alone(part) for part in self.parts]

    def _run_alone(self, part: Part) -> TopK | BaseException:
        try:
            return self._top_k([part], None)[0]
        except BaseException as error:
            return _as_outcome(error, part.call)


def _split(top: TopK, parts: Sequence[Part]) -> Iterator[TopK]:
    offsets = top.offsets.tolist()
    row = 0
    for part in parts:
        end = row + len(part)
        hits = slice(offsets[row], offsets[end])
        yield TopK(top.labels[hits], top.scores[hits], top.counts[row:end])
        row = end


def _as_outcome(error: BaseException, call: Call) -> BaseException:
    if isinstance(error, MotherlodeError):
        return error
    # The engine's thread runs calls of many contexts, so the id is told here.
    logger.error("a call failed", exc_info=error, extra={"request_id": call.request_id})
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
                logger.warning("the server stopped before a batch of %d", len(batch.parts))
                return
            # Idle for hours, the thread must not keep a version in memory that was retired.
            del batch
