"""Dynamic batching: what waits while the engine is busy runs together next.

An idle engine starts at once on what has arrived; nothing ever waits for company. A busy one gets
what waits just before it is done, so that it need not wait for the event loop. Runs in the event
loop's thread alone. A single query of a version known to be fast runs there too, as long as calls
come one after another: to wake the engine's thread, and the loop's again, would cost a good part of
the time that the query itself takes. Once calls overlap, the loop has enough to do with reading and
answering them, and the engine's time is what lets batches form.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import final

import numpy as np

from motherlode.core.errors import OverloadedError
from motherlode.core.topk import TopK
from motherlode.server.call import Answer, Call, ExpiredError, Part
from motherlode.server.engine import Batch, Engine
from motherlode.server.fair_queue import FairQueue
from motherlode.server.metrics import Meters
from motherlode.server.queue_limits import Admission, QueueLimits

# What the event loop can spare at a time.
_QUICK_S = 0.002
# For which it spares nothing after calls have overlapped.
_CROWDED_S = 0.1
# How long before the end of a batch the next one is made up, and how long a batch has to be for
# that: an event loop's timers are good to a millisecond, and what comes later waits longer.
_AHEAD_S, _LONG_S = 0.001, 0.003


@final
class Batcher:
    """The queue before the engine.

    Args:
        meters: Counts what passes through.
        limits: What may wait. A call with more queries than make a batch runs in parts, between
            which others have their turn.
        max_batch_bytes: Memory that a batch may take while it is searched.
    """

    def __init__(self, meters: Meters, limits: QueueLimits, *, max_batch_bytes: int) -> None:
        self._engine = Engine(self._finish)
        self._meters = meters
        self._queue = FairQueue(self._is_wanted)
        self._admission = Admission(limits, self._queue, self._count_refusal)
        self._max_batch = limits.max_batch
        self._max_batch_bytes = max_batch_bytes
        self._begun = 0.0
        self._running: Batch | None = None
        self._ahead: Batch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_waking = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._overlapped_at = float("-inf")
        meters.watch_queue(lambda: self._queue.num_left, lambda: self._queue.num_bytes)

    def start(self) -> None:
        """Starts the engine; to be called in the running event loop."""
        self._engine.start()

    @property
    def is_running(self) -> bool:
        """Whether the engine's thread has not ended."""
        return self._engine.is_running

    def stop(self, timeout_s: float | None = None) -> None:
        """Stops the engine; waits for the batches that it has, but not for ever."""
        self._engine.stop(timeout_s)

    async def wait_idle(self) -> None:
        """Returns when nothing waits or runs."""
        await self._idle.wait()

    def submit(self, call: Call) -> asyncio.Future[Answer]:
        """Puts a call in the queue; cancel the future to take it out again.

        Raises:
            OverloadedError: If it should come again later; the future gets it, if later calls of
                others need the room.
            RequestTooLargeError: If the queue could never hold it.
        """
        self._admission.admit(call, time.monotonic())
        self._queue.put(call)
        self._idle.clear()
        if self._running is not None or self._is_waking:
            self._overlapped_at = call.arrived
        else:
            # Not at once: what else arrived in this turn of the loop comes along.
            self._is_waking = True
            asyncio.get_running_loop().call_soon(self._wake)
        return call.future

    def _wake(self) -> None:
        self._is_waking = False
        if self._running is None:
            self._start_next()

    def _start_next(self) -> None:
        if (ahead := self._ahead) is not None:
            self._ahead = None
            self._begin(ahead)
        elif (batch := self._take()) is not None:
            self._begin(batch)
            self._run(batch)
        else:
            self._running = None
            self._admission.rest()
            self._idle.set()

    def _take(self) -> Batch | None:
        parts = self._queue.take(self._room_for)
        return Batch(parts) if parts else None

    def _begin(self, batch: Batch) -> None:
        self._running = batch
        self._begun = time.monotonic()
        expected_s = self._admission.begin(batch.num_queries, self._begun)
        if expected_s >= _LONG_S:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(expected_s - _AHEAD_S, self._run_ahead)

    def _run(self, batch: Batch) -> None:
        is_crowded = batch.parts[0].call.arrived - self._overlapped_at <= _CROWDED_S
        if _is_quick(batch.parts) and not is_crowded:
            self._run_here(batch)
        else:
            self._engine.run(batch)

    def _run_ahead(self) -> None:
        self._ahead = self._take()
        if self._ahead is not None:
            self._admission.follow(self._ahead.num_queries)
            self._engine.run(self._ahead)

    def _run_here(self, batch: Batch) -> None:
        # Nobody can leave meanwhile.
        batch.run(drop_lost=False)
        if self._queue.num_left:
            asyncio.get_running_loop().call_soon(self._finish, batch)
        else:
            self._finish(batch)

    def _room_for(self, call: Call) -> int:
        fitting = self._max_batch_bytes // call.served.retriever.bytes_per_query(call.k)
        return max(1, min(self._max_batch, fitting))

    def _is_wanted(self, call: Call) -> bool:
        reason = call.lost_reason(time.monotonic())
        if reason == "expired":
            call.future.set_exception(ExpiredError("encode"))
        if reason is not None:
            self._count_dropped(reason, "encode")
        return reason is None

    def _count_dropped(self, reason: str, stage: str) -> None:
        # What is done already was counted for what it came to.
        if reason != "done":
            self._meters.dropped.labels(reason, stage).inc()

    def _count_refusal(self, refusal: OverloadedError) -> None:
        self._meters.rejected.labels(refusal.reason.lower()).inc()

    def _finish(self, batch: Batch) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._admission.end(batch.num_queries, time.monotonic() - self._begun)
        # Of a call that failed, no further part is to run.
        for part, outcome in zip(batch.parts, batch.outcomes, strict=True):
            if isinstance(outcome, BaseException) and not part.call.future.done():
                part.call.future.set_exception(outcome)
        # Before the answers, so that the engine works while the loop sends them.
        self._start_next()
        for part, outcome in zip(batch.parts, batch.outcomes, strict=True):
            if isinstance(outcome, Answer) and not part.call.future.done():
                part.call.future.set_result(outcome)
        # After the answers, which are on their way by then.
        asyncio.get_running_loop().call_soon(self._observe, batch)

    def _observe(self, batch: Batch) -> None:
        call, times = batch.parts[0].call, batch.times
        call.served.note_duration(batch.stopped - batch.started)
        call.served.statistics.num_batches += 1
        meters = call.served.meters
        answers = [outcome for outcome in batch.outcomes if isinstance(outcome, Answer)]
        for answer in answers:
            meters.observe_stage("queue", answer.queue_s)
        meters.observe_stage("features", times.features_s)
        meters.observe_stage("encode", times.encode_s)
        meters.observe_stage("search", times.search_s)
        meters.observe_stage("rank", times.rank_s)
        num_short = sum(_num_short(answer.top, call.k) for answer in answers)
        meters.observe_batch(batch.num_queries, num_short)
        for reason in batch.dropped.values():
            self._count_dropped(reason, "search")


def _is_quick(parts: Sequence[Part]) -> bool:
    """Whether the event loop can run them without keeping others waiting."""
    call = parts[0].call
    is_plain = len(parts) == 1 and len(parts[0]) == 1 and call.filter is None
    return is_plain and call.served.usual_duration_s < _QUICK_S


def _num_short(top: TopK, k: int) -> int:
    """Queries with fewer than k hits."""
    # Most answers are full, and two lengths tell that faster than an array can.
    return 0 if len(top.labels) == len(top) * k else int(np.count_nonzero(top.counts < k))
