"""Sums over the calls of one version, for callers who ask the server itself and not Prometheus."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import final

from motherlode.core.query_path import StageTimes

_NUM_LATEST = 1000


@final
@dataclass(slots=True)
class Tally:
    """How often something happened, and how many seconds it took in all."""

    count: int = 0
    total_s: float = 0.0

    def add(self, duration_s: float) -> None:
        """It happened once more."""
        self.count += 1
        self.total_s += duration_s


@final
@dataclass(slots=True)
class VersionStatistics:
    """What one version has done since it was loaded; belongs to the event loop's thread.

    A call that shared a batch counts the whole time of the batch in each of its stages, for that
    is how long it took for its caller.

    Attributes:
        answered: Calls that were answered, from arrival to answer.
        failed: Calls that were not, from arrival to error.
        num_faults: Of these, the ones that no caller can help: INTERNAL.
        queue: Waits of the answered calls.
        features: Their time in making features.
        compute: Their time in encoding, searching and ranking.
        writing: Their time in making messages of answers.
        num_queries: Queries of the answered calls.
        num_batches: Batches that ran.
        last_answer_unix_s: Unix time of the latest answer; 0 before the first.
        latest_s: Seconds from arrival to answer of the latest calls, in their order.
    """

    answered: Tally = field(default_factory=Tally)
    failed: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    features: Tally = field(default_factory=Tally)
    compute: Tally = field(default_factory=Tally)
    writing: Tally = field(default_factory=Tally)
    num_faults: int = 0
    num_queries: int = 0
    num_batches: int = 0
    last_answer_unix_s: float = 0.0
    latest_s: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_LATEST))

    def add_answer(
        self,
        num_queries: int,
        times: StageTimes,
        *,
        queue_s: float,
        writing_s: float,
        duration_s: float,
    ) -> None:
        """A call was answered, `duration_s` after it arrived; `times` are those of its batch."""
        self.answered.add(duration_s)
        self.latest_s.append(duration_s)
        self.queue.add(queue_s)
        self.features.add(times.features_s)
        self.compute.add(times.encode_s + times.search_s + times.rank_s)
        self.writing.add(writing_s)
        self.num_queries += num_queries
        self.last_answer_unix_s = time.time()
