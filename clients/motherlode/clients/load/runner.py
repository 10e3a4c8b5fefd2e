"""Runs a load: sends the calls when they are due and counts how they end."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass
from itertools import count
from typing import Any, final

import numpy as np

from motherlode.clients.load.arrivals import poisson_arrivals
from motherlode.clients.load.protocol import OK, Answer, LoadProtocol
from motherlode.clients.load.report import LoadReport

__all__ = ["ClosedLoop", "OpenLoop", "precise_event_loop", "run_load"]


@final
@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Calls come when they are due, whether or not earlier ones have been answered.

    Latencies count from the time when a call was due. So what waits behind a slow answer counts as
    slow too: Gil Tene calls the lack of it coordinated omission.

    Attributes:
        rate: Calls per second on average.
        seed: Of the arrivals, which are Poisson.
        max_in_flight: Calls under way at a time; more are counted, but not sent.
    """

    rate: float
    seed: int = 0
    max_in_flight: int = 20_000


@final
@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Callers that each make the next call when the last one has ended.

    Latencies count from the time when a call was sent.

    Attributes:
        concurrency: Number of callers.
    """

    concurrency: int = 1


def precise_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes up within microseconds.

    asyncio's own rounds each wait up to whole milliseconds, as epoll does, which would make every
    call of an open loop late by half a millisecond on average.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def run_load(
    protocol: LoadProtocol,
    load: OpenLoop | ClosedLoop,
    *,
    duration_s: float,
    stop: asyncio.Event | None = None,
) -> LoadReport:
    """Makes calls for a while and waits for those under way; `connect` has been awaited before.

    Args:
        protocol: Makes the calls.
        load: When they are made.
        duration_s: Seconds in which calls are due or sent.
        stop: Ends the run when set; what is under way then is not waited for.

    Raises:
        ValueError: If a number is not positive and finite.
    """
    run = _Run(protocol, duration_s)
    work = asyncio.ensure_future(run.send(load))
    stopping = asyncio.ensure_future((stop or asyncio.Event()).wait())
    try:
        ends: list[asyncio.Future[Any]] = [work, stopping, run.failure]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        report = run.finish(is_interrupted=not work.done())
    finally:
        for task in (work, stopping, *run.tasks):
            task.cancel()
        await asyncio.gather(work, stopping, *run.tasks, return_exceptions=True)
    for done in (run.failure, work):
        if done.done() and not done.cancelled():
            done.result()
    return report


@final
class _Run:
    """One run.

    Attributes:
        tasks: Those of the calls under way, or of the callers.
        failure: Gets what a call raised: a protocol should have made an answer of it.
    """

    def __init__(self, protocol: LoadProtocol, duration_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self.failure: asyncio.Future[None] = loop.create_future()
        self._protocol = protocol
        self._duration_s = duration_s
        self._now = loop.time
        self._start = self._last_ok = loop.time()
        self._report = LoadReport(queries_per_call=protocol.queries_per_call)
        # Since when each call that has no answer yet waits for one, by the call's number.
        self._under_way: dict[int, float] = {}

    async def send(self, load: OpenLoop | ClosedLoop) -> None:
        """Sends all calls and waits for their answers."""
        if isinstance(load, OpenLoop):
            await self._send_when_due(load)
        else:
            self._send_in_turns(load)
        while self.tasks:
            await asyncio.wait(self.tasks)

    def finish(self, *, is_interrupted: bool) -> LoadReport:
        """What came of it, now that nothing more is waited for."""
        report, now = self._report, self._now()
        for since in self._under_way.values():
            report.record(Answer("UNFINISHED", "stopped before an answer came"), now - since)
        report.is_interrupted = is_interrupted
        report.sending_s = min(self._duration_s, now - self._start)
        report.elapsed_s = max(report.sending_s, self._last_ok - self._start)
        return report

    async def _send_when_due(self, load: OpenLoop) -> None:
        generator = np.random.default_rng(load.seed)
        arrivals = poisson_arrivals(load.rate, self._duration_s, generator)
        for number, due_s in enumerate(arrivals):
            due = self._start + due_s
            # Also when it is late: a wait of no time lets the calls under way go on.
            await asyncio.sleep(max(0.0, due - self._now()))
            self._report.num_due += 1
            if len(self._under_way) < load.max_in_flight:
                self._under_way[number] = due
                self._start_task(self._call_late(number, due))
            else:
                self._report.record(Answer("NOT_SENT", "too many calls under way"), 0.0)
        await asyncio.sleep(self._start + self._duration_s - self._now())

    def _send_in_turns(self, load: ClosedLoop) -> None:
        if load.concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {load.concurrency}")
        numbers = count()
        for _ in range(load.concurrency):
            self._start_task(self._call_in_turns(numbers))

    async def _call_late(self, number: int, due: float) -> None:
        self._report.lateness.record(max(0.0, self._now() - due))
        await self._call(number, due)

    async def _call_in_turns(self, numbers: count[int]) -> None:
        end = self._start + self._duration_s
        while (sent := self._now()) < end:
            number = next(numbers)
            self._report.num_due += 1
            self._under_way[number] = sent
            await self._call(number, sent)

    async def _call(self, number: int, since: float) -> None:
        answer = await self._protocol.call(number)
        now = self._now()
        del self._under_way[number]
        if answer.status == OK:
            self._last_ok = now
        self._report.record(answer, max(0.0, now - since))

    def _start_task(self, calling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(calling)
        self.tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failure.done():
            self.failure.set_exception(error)
