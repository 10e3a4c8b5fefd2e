"""One request on its way through the queue, and what it gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import final

from motherlode.core.errors import MotherlodeError
from motherlode.core.index import LabelFilter
from motherlode.core.queries import Queries
from motherlode.core.query_path import StageTimes
from motherlode.core.topk import TopK, concatenate
from motherlode.server.slot import ServedVersion


@final
class InternalError(MotherlodeError):
    """Something failed that nobody foresaw; the log has the traceback, the caller no detail."""


@final
class ExpiredError(MotherlodeError):
    """The call's deadline passed before its answer was found.

    Attributes:
        stage: What it did not come to: `encode` or `search`.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        super().__init__(f"the deadline passed before the {stage} of the call's queries")


@final
@dataclass(slots=True, eq=False)
class Answer:
    """What one call gets.

    Attributes:
        top: Its hits.
        queue_s: Its waits: for its turn, and for that of each further part of it.
        times: Times of the batches that it ran in.
        batch_size: Queries of the last of them.
    """

    top: TopK
    queue_s: float
    times: StageTimes
    batch_size: int = 0


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
        caller: Who asks: callers share the server by their names.
        is_patient: Whether it rather waits than be refused for a long wait.
        num_bytes: Memory that it holds while it waits.
        request_id: By which its caller knows it.
        group: Equal for calls that can run together.
        num_taken: Queries that have run, run now or are next.
        num_left: The other ones.
    """

    served: ServedVersion
    queries: Queries
    k: int
    future: asyncio.Future[Answer]
    filter: LabelFilter | None = None
    deadline: float = float("inf")
    arrived: float = field(default_factory=time.monotonic)
    caller: str = ""
    is_patient: bool = False
    num_bytes: int = 0
    request_id: str = ""
    group: Hashable = field(init=False)
    num_taken: int = field(init=False, default=0)
    num_left: int = field(init=False)
    _progress: _Progress | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.group = self.served, type(self.queries), self.k, _identity(self.filter)
        self.num_left = len(self.queries)

    def lost_reason(self, now: float) -> str | None:
        """Why nobody waits for the answer any more: `cancelled`, `expired`; None if somebody does.

        A call that has its outcome already is `done`.
        """
        if self.future.done():
            return "cancelled" if self.future.cancelled() else "done"
        return "expired" if self.deadline <= now else None

    def add(self, top: TopK, started: float, times: StageTimes, *, is_last: bool) -> Answer | None:
        """Notes the hits of its next queries; gives the whole answer after the last ones.

        Args:
            top: The hits.
            started: `time.monotonic` when their batch started.
            times: Of that batch.
            is_last: Whether no queries are left.
        """
        if is_last and self._progress is None:
            return Answer(top, started - self.arrived, times)
        if self._progress is None:
            self._progress = _Progress(self.arrived)
        self._progress.add(top, started, times)
        return self._progress.answer() if is_last else None


@final
class _Progress:
    """What a call that runs in several batches has so far."""

    def __init__(self, arrived: float) -> None:
        self._tops: list[TopK] = []
        self._queue_s = 0.0
        self._times = StageTimes()
        self._waits_since = arrived

    def add(self, top: TopK, started: float, times: StageTimes) -> None:
        self._tops.append(top)
        self._times.add(times)
        self._queue_s += started - self._waits_since
        self._waits_since = time.monotonic()

    def answer(self) -> Answer:
        return Answer(concatenate(self._tops), self._queue_s, self._times)


@final
@dataclass(slots=True, eq=False)
class Part:
    """Queries of one call that run in one batch: start to stop, stop excluded."""

    call: Call
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def is_last(self) -> bool:
        """Whether the call is done with it."""
        return self.stop == len(self.call.queries)

    @property
    def queries(self) -> Queries:
        """The queries themselves."""
        whole = self.call.queries
        return whole if len(self) == len(whole) else whole.rows(self.start, self.stop)


def _identity(label_filter: LabelFilter | None) -> Hashable:
    if label_filter is None:
        return None
    return label_filter.mode, label_filter.rows.tobytes()
