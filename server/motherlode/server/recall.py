"""How much of an exact search the answers hold, measured on a share of the traffic as it passes.

Which queries are looked at is drawn in the event loop, at the cost of a subtraction for each call.
The search itself is done one query at a time in a thread of its own, with low priority and with
pauses between the queries. Where it cannot keep up, samples are dropped; answers never wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
import weakref
from collections import deque
from copy import deepcopy
from dataclasses import dataclass
from queue import SimpleQueue
from typing import final

import numpy as np

from motherlode.core.index import LabelFilter, limit_index_threads
from motherlode.core.queries import FloatArray, Queries
from motherlode.core.retriever import Retriever
from motherlode.server.call import Answer, Call
from motherlode.server.metrics import Meters, VersionMeters
from motherlode.server.priority import lower_priority
from motherlode.server.slot import ServedVersion

logger = logging.getLogger(__name__)

# A filter may be as long as the label table, so a longer queue could take much memory.
_MAX_WAITING = 16
# Samples that the gauge looks back on; the counters are for longer spans.
_WINDOW = 1000
# Callers choose k, and each k is a series. What comes after so many of them shares one.
_MAX_KS = 8
_OTHER_K = "other"
# Longer than any server lives, and short enough for an integer.
_LONGEST_GAP = 2.0**53


@final
@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One query with the scores that it was answered with; keeps nothing else in memory.

    Attributes:
        version: What answered it, as long as that is loaded.
        queries: One query.
        k: Hits wanted.
        filter: Labels that could be found.
        scores: float32 [hits], of the answer.
    """

    version: weakref.ref[ServedVersion]
    queries: Queries
    k: int
    filter: LabelFilter | None
    scores: FloatArray

    @classmethod
    def of(cls, call: Call, answer: Answer, row: int) -> Sample:
        """Query `row` of a call, copied out of the arrays that it shares with others."""
        queries = deepcopy(call.queries.rows(row, row + 1))
        scores = answer.top.row(row)[1].copy()
        return cls(weakref.ref(call.served), queries, call.k, call.filter, scores)


@final
class RecallSampler:
    """Measures the recall of approximate indexes on live traffic.

    Args:
        meters: Counts what was found, and what became of the samples.
        sample_rate: Share of the queries to look at, above 0 and at most 1.
        cpu_share: Share of the time of one core that may be spent, above 0 and at most 1.
        generator: Draws the queries.
    """

    def __init__(
        self, meters: Meters, *, sample_rate: float, cpu_share: float, generator: random.Random
    ) -> None:
        self._meters = meters
        self._sample_rate = sample_rate
        self._cpu_share = cpu_share
        self._generator = generator
        self._gap = self._draw_gap()
        self._inbox: SimpleQueue[Sample | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._series: weakref.WeakKeyDictionary[VersionMeters, dict[str, _Series]] = (
            weakref.WeakKeyDictionary()
        )

    def start(self) -> None:
        """Starts the thread; to be called in the running event loop."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, args=(loop,), name="motherlode-recall", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """Ends the thread after the query under way; waits for that, but not for ever."""
        self._stopping.set()
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def offer(self, call: Call, answer: Answer) -> None:
        """Looks at a call that was answered; takes those of its queries that were drawn."""
        self._gap -= len(call.queries)
        if self._gap < 0:
            self._take(call, answer)

    def _take(self, call: Call, answer: Answer) -> None:
        is_exact = call.served.retriever.path.index.is_exact
        num_queries = len(call.queries)
        row = num_queries + self._gap
        while row < num_queries:
            if is_exact:
                pass
            elif self._inbox.qsize() < _MAX_WAITING:
                self._inbox.put(Sample.of(call, answer, row))
            else:
                self._meters.recall_samples.labels("dropped").inc()
            row += 1 + self._draw_gap()
        self._gap = row - num_queries

    def _draw_gap(self) -> int:
        """Queries to pass over before the next one, so that each is drawn with the same chance."""
        if self._sample_rate >= 1:
            return 0
        uniform = 1.0 - self._generator.random()
        return int(min(math.log(uniform) / math.log1p(-self._sample_rate), _LONGEST_GAP))

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        lower_priority()
        limit_index_threads(1)
        while (sample := self._inbox.get()) is not None:
            started = time.monotonic()
            try:
                self._measure(sample, loop)
            except RuntimeError:
                # The loop has ended before its server was closed.
                return
            del sample
            pause_s = pause_after(time.monotonic() - started, self._cpu_share)
            if self._stopping.wait(pause_s):
                return

    def _measure(self, sample: Sample, loop: asyncio.AbstractEventLoop) -> None:
        served = sample.version()
        if served is None:
            loop.call_soon_threadsafe(self._count, "retired")
            return
        try:
            found, wanted = compare(served.retriever, sample)
        except Exception:
            logger.exception("an exact search of %s@%d failed", served.model, served.version)
            loop.call_soon_threadsafe(self._count, "failed")
            return
        loop.call_soon_threadsafe(self._note, served.meters, sample.k, found, wanted)

    def _count(self, outcome: str) -> None:
        self._meters.recall_samples.labels(outcome).inc()

    def _note(self, version: VersionMeters, k: int, found: int, wanted: int) -> None:
        if version.is_removed:
            self._count("retired")
            return
        by_k = self._series.setdefault(version, {})
        name = str(k) if str(k) in by_k or len(by_k) < _MAX_KS else _OTHER_K
        if name not in by_k:
            by_k[name] = _Series(self._meters, version.labels, name)
        by_k[name].add(found, wanted)
        self._count("measured")


@final
class _Series:
    """Recall of one version at one k."""

    def __init__(self, meters: Meters, version: tuple[str, ...], k: str) -> None:
        self._found = meters.recall_found.labels(*version, k)
        self._wanted = meters.recall_wanted.labels(*version, k)
        self._ratio = meters.recall_ratio
        self._labels = (*version, k)
        self._recent: deque[tuple[int, int]] = deque(maxlen=_WINDOW)

    def add(self, found: int, wanted: int) -> None:
        self._found.inc(found)
        self._wanted.inc(wanted)
        self._recent.append((found, wanted))
        sums = [sum(column) for column in zip(*self._recent, strict=True)]
        if sums[1]:
            self._ratio.labels(*self._labels).set(sums[0] / sums[1])


def compare(retriever: Retriever, sample: Sample) -> tuple[int, int]:
    """Hits of the answer that exact search would give, and hits that it would give in all.

    The stages round the index are the same, a ranker too. A hit that scores as high as the last of
    the exact answer counts as found, whichever of the labels with that score it is.
    """
    best = retriever.path.exact().top_k(sample.queries, sample.k, filter=sample.filter)
    wanted = len(best.scores)
    if not wanted:
        return 0, 0
    return int(np.count_nonzero(sample.scores >= best.scores[-1])), wanted


def pause_after(spent_s: float, share: float) -> float:
    """Seconds of rest after which `spent_s` seconds of work are that share of the time."""
    return spent_s * (1.0 / share - 1.0)
