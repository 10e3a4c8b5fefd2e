"""Dynamic batching: what waits while the engine is busy runs together next.

An idle engine starts at once on what has arrived; nothing ever waits for company. Runs in the event
loop's thread alone. A single query of a version known to be fast runs there too: to wake the
engine's thread, and the loop's again, would cost a good part of the time that the query itself
takes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable
from typing import final

import numpy as np

from motherlode.core.errors import OverloadedError
from motherlode.core.index import LabelFilter
from motherlode.core.topk import TopK
from motherlode.server.engine import Answer, Batch, Call, Engine, ExpiredError
from motherlode.server.metrics import Meters

_SHORTEST_RETRY_S = 0.01
_LONGEST_RETRY_S = 5.0
_SECONDS_PER_QUERY_AT_FIRST = 0.001
_SMOOTHING = 0.1
# What the event loop can spare at a time.
_QUICK_S = 0.002


@final
class Batcher:
    """The queue before the engine.

    Args:
        meters: Counts what passes through.
        max_queued: Queries that may wait.
        max_batch: Queries that run together, unless one call alone has more.
    """

    def __init__(self, meters: Meters, *, max_queued: int, max_batch: int) -> None:
        self._engine = Engine(self._finish)
        self._meters = meters
        self._max_queued = max_queued
        self._max_batch = max_batch
        # In order of each group's turn. Only calls of one group give the same answers together.
        self._groups: dict[Hashable, deque[Call]] = {}
        self._num_queued = 0
        self._is_busy = False
        self._is_waking = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._seconds_per_query = _SECONDS_PER_QUERY_AT_FIRST
        meters.watch_queue(lambda: self._num_queued)

    @property
    def num_queued(self) -> int:
        """Queries that wait."""
        return self._num_queued

    def start(self) -> None:
        """Starts the engine; to be called in the running event loop."""
        self._engine.start()

    @property
    def is_running(self) -> bool:
        """Whether the engine's thread has not ended."""
        return self._engine.is_running

    def stop(self, timeout_s: float | None = None) -> None:
        """Stops the engine; waits for the batch under way, but not for ever."""
        self._engine.stop(timeout_s)

    async def wait_idle(self) -> None:
        """Returns when nothing waits or runs."""
        await self._idle.wait()

    def submit(self, call: Call) -> asyncio.Future[Answer]:
        """Puts a call in the queue; cancel the future to take it out again.

        Raises:
            OverloadedError: If the queue has no room for its queries.
        """
        num_queries = len(call.queries)
        if self._num_queued + num_queries > self._max_queued and self._num_queued:
            self._meters.rejected.labels("queue_full").inc()
            raise OverloadedError(
                f"{self._num_queued} queries wait, of at most {self._max_queued}",
                retry_after_s=self._time_to_drain(),
            )
        self._num_queued += num_queries
        self._groups.setdefault(_group_of(call), deque()).append(call)
        self._idle.clear()
        if not self._is_busy and not self._is_waking:
            # Not at once: what else arrived in this turn of the loop comes along.
            self._is_waking = True
            asyncio.get_running_loop().call_soon(self._wake)
        return call.future

    def _wake(self) -> None:
        self._is_waking = False
        if not self._is_busy:
            self._start_next()

    def _start_next(self) -> None:
        calls: list[Call] = []
        while self._groups and not calls:
            calls = self._take()
        self._is_busy = bool(calls)
        if not calls:
            self._idle.set()
        elif _is_quick(calls):
            self._run_here(Batch(calls))
        else:
            self._engine.run(Batch(calls))

    def _run_here(self, batch: Batch) -> None:
        batch.run()
        asyncio.get_running_loop().call_soon(self._finish, batch)

    def _take(self) -> list[Call]:
        """The next group's calls, as many as fit, without those that nobody waits for."""
        key = next(iter(self._groups))
        group = self._groups.pop(key)
        calls: list[Call] = []
        num_queries, now = 0, time.monotonic()
        while group and (not calls or num_queries + len(group[0].queries) <= self._max_batch):
            call = group.popleft()
            self._num_queued -= len(call.queries)
            if self._is_wanted(call, now):
                calls.append(call)
                num_queries += len(call.queries)
        if group:
            # Behind the other groups: one busy model cannot starve the rest.
            self._groups[key] = group
        return calls

    def _is_wanted(self, call: Call, now: float) -> bool:
        if call.future.done():
            self._meters.dropped.labels("cancelled").inc()
            return False
        if call.deadline <= now:
            self._meters.dropped.labels("expired").inc()
            call.future.set_exception(ExpiredError("the deadline passed while the call waited"))
            return False
        return True

    def _finish(self, batch: Batch) -> None:
        # First, so that the engine works while the loop sends the answers.
        self._start_next()
        for call, outcome in zip(batch.calls, batch.outcomes, strict=True):
            if call.future.done():
                continue
            if isinstance(outcome, Answer):
                call.future.set_result(outcome)
            else:
                call.future.set_exception(outcome)
        # After the answers, which are on their way by then.
        asyncio.get_running_loop().call_soon(self._observe, batch)

    def _observe(self, batch: Batch) -> None:
        num_queries, duration_s = batch.num_queries, batch.stopped - batch.started
        self._seconds_per_query += _SMOOTHING * (duration_s / num_queries - self._seconds_per_query)
        served, times, k = batch.calls[0].served, batch.times, batch.calls[0].k
        served.note_duration(duration_s)
        served.statistics.num_batches += 1
        meters = served.meters
        answers = [outcome for outcome in batch.outcomes if isinstance(outcome, Answer)]
        for answer in answers:
            meters.observe_stage("queue", answer.queue_s)
        meters.observe_stage("features", times.features_s)
        meters.observe_stage("encode", times.encode_s)
        meters.observe_stage("search", times.search_s)
        meters.observe_stage("rank", times.rank_s)
        meters.observe_batch(num_queries, sum(_num_short(answer.top, k) for answer in answers))

    def _time_to_drain(self) -> float:
        estimate = self._num_queued * self._seconds_per_query
        return min(max(estimate, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)


def _is_quick(calls: list[Call]) -> bool:
    """Whether the event loop can run them without keeping others waiting."""
    call = calls[0]
    is_plain = len(calls) == 1 and len(call.queries) == 1 and call.filter is None
    return is_plain and call.served.usual_duration_s < _QUICK_S


def _num_short(top: TopK, k: int) -> int:
    """Queries with fewer than k hits."""
    # Most answers are full, and two lengths tell that faster than an array can.
    return 0 if len(top.labels) == len(top) * k else int(np.count_nonzero(top.counts < k))


def _group_of(call: Call) -> Hashable:
    return call.served, type(call.queries), call.k, _identity(call.filter)


def _identity(label_filter: LabelFilter | None) -> Hashable:
    if label_filter is None:
        return None
    return label_filter.mode, label_filter.rows.tobytes()
