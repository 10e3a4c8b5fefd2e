"""Measuring index settings and choosing one: their figures, their Pareto front, the cheapest.

A sweep over one built index ends where more of its setting cannot help any more: where it finds as
much as is asked for, takes far longer than it may, or is slower than exact search.

Shapes: B queries, L labels in all, D embedding width, K hits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import final

import numpy as np
from numpy.typing import NDArray

from motherlode.core.index.config import ExactConfig, IndexConfig
from motherlode.core.index.families import build_index, shares_found
from motherlode.core.index.grid import GRID, Sweep
from motherlode.core.index.index import LabelIndex
from motherlode.core.index.targets import Target, total_shortfall
from motherlode.core.queries import FloatArray
from motherlode.core.topk import TopK

BATCH = 64
# The 99th percentile of fewer latencies is their maximum.
MIN_QUERIES = 100
# A round of timings ends after so long, once there are MIN_QUERIES of them.
_TIMING_S = 0.2
_ROUNDS = 5
_WARM_UP_QUERIES = 5
# So far beyond a bound, relative to it, no noise of timings brings a median back within it.
_FAR_TOO_SLOW = 0.5
# Differences below this share are the noise of timings.
_SAME_SPEED = 0.1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One setting and what it reaches.

    Attributes:
        family: As in the grid.
        config: The setting.
        recalls: Share (0 to 1) of the k best labels that are found, by k.
        recall_errors: Standard error of each recall, over queries.
        p50_s: Median seconds of one query alone.
        p99_s: 99th percentile of the same.
        queries_per_s: In batches of 64.
        memory_bytes: Predicted memory of all that is loaded.
        build_s: Seconds to build the index.
    """

    family: str
    config: IndexConfig
    recalls: Mapping[int, float]
    recall_errors: Mapping[int, float]
    p50_s: float
    p99_s: float
    queries_per_s: float
    memory_bytes: int
    build_s: float

    @property
    def recall(self) -> float:
        """That for the largest k."""
        return self.recalls[max(self.recalls)]

    def value(self, target: Target) -> float:
        """What a target is about, in the metric's own unit."""
        if target.k is not None:
            return self.recalls[target.k]
        values = {
            "p50": self.p50_s,
            "p99": self.p99_s,
            "qps": self.queries_per_s,
            "memory": float(self.memory_bytes),
            "build": self.build_s,
        }
        return values[target.metric]

    def shortfall(self, targets: Iterable[Target]) -> float:
        """How far it misses the targets, 0 if it meets all."""
        return total_shortfall(targets, self.value)

    def costs(self) -> tuple[float, ...]:
        """What the Pareto front is over, less being better in each.

        Not the time to build: it is spent once, and from one build to the next it varies by more
        than families differ, so that every setting would be on the front.
        """
        return -self.recall, self.p50_s, float(self.memory_bytes)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """What every setting is measured with.

    Attributes:
        labels_LD: float32 [L, D].
        queries_BD: float32 [B, D], held out, in random order; B at least `MIN_QUERIES`.
        ks: Depths of recall, ascending.
        num_hits: Hits that serving asks the index for, at least the last of `ks`: more where a
            ranker has a longer shortlist.
        seed: For building.
        other_bytes: Memory of what is loaded beside the index.
        clock: Seconds since some moment.
    """

    labels_LD: FloatArray
    queries_BD: FloatArray
    ks: tuple[int, ...]
    num_hits: int
    seed: int
    other_bytes: int
    clock: Callable[[], float] = field(default=perf_counter)

    def run(
        self,
        sweeps: Iterable[Sweep] = GRID,
        targets: Sequence[Target] = (),
        *,
        on_built: Callable[[Sweep, IndexConfig, float], object] = lambda *_: None,
    ) -> Iterator[Measured]:
        """The figures of the settings of some families, one after the other.

        No index outlives its sweep, since a large one takes as much memory as all that is served.

        Args:
            sweeps: What to try.
            targets: A sweep ends where more of its setting cannot help to meet them.
            on_built: Called after each build with the seconds it took.
        """
        best_BK = self._scores(build_index(ExactConfig(), self.labels_LD, seed=0))
        exact: Measured | None = None
        for sweep in sweeps:
            for build in sweep.builds:
                runs = [sweep.configs({**build, **v}, self.num_hits) for v in sweep.variants]
                started = self.clock()
                index = build_index(runs[0][0], self.labels_LD, seed=self.seed)
                build_s = self.clock() - started
                on_built(sweep, runs[0][0], build_s)
                for configs in runs:
                    for config in configs:
                        configured = index.configured(config)
                        measured = self.measure(sweep.family, configured, best_BK, build_s)
                        yield measured
                        exact = measured if isinstance(config, ExactConfig) else exact
                        if _is_last(measured, exact, targets):
                            break

    def measure(
        self, family: str, index: LabelIndex, best_BK: FloatArray, build_s: float
    ) -> Measured:
        """The figures of one index as it is set.

        Args:
            family: As in the grid.
            index: Over the labels.
            best_BK: float32 [B, K], the scores of exact search.
            build_s: Seconds it took to build.
        """
        found_BK = self._scores(index)
        shares = {k: shares_found(found_BK[:, :k], best_BK[:, :k]) for k in self.ks}
        alone_s = time_alone(self._search(index), self.queries_BD, self.clock)
        return Measured(
            family=family,
            config=index.config,
            recalls={k: float(share_B.mean()) for k, share_B in shares.items()},
            recall_errors={k: float(s.std() / len(s) ** 0.5) for k, s in shares.items()},
            p50_s=float(np.quantile(alone_s, 0.5)),
            p99_s=float(np.quantile(alone_s, 0.99)),
            queries_per_s=time_batches(self._search(index), self.queries_BD, self.clock),
            memory_bytes=self.other_bytes + index.predicted_bytes,
            build_s=build_s,
        )

    def _search(self, index: LabelIndex) -> Callable[[FloatArray], TopK]:
        return lambda queries_BD: index.search(queries_BD, self.num_hits)

    def _scores(self, index: LabelIndex) -> FloatArray:
        """float32 [B, K]."""
        scores: FloatArray = self._search(index)(self.queries_BD).scores
        return scores.reshape(len(self.queries_BD), -1)


def _is_last(measured: Measured, exact: Measured | None, targets: Sequence[Target]) -> bool:
    """Whether a more thorough and slower setting of the same build cannot be worth it."""
    recalls = [target for target in targets if target.metric == "recall"]
    is_enough = bool(recalls) and measured.shortfall(recalls) == 0
    if is_enough or min(measured.recalls.values()) == 1:
        return True
    # The median for both: where few lists hold too few labels, a scan makes up for it, so that the
    # slowest queries get faster with more of them.
    bounds = [target for target in targets if target.metric in ("p50", "p99")]
    if any(target.shortfall(measured.p50_s) > _FAR_TOO_SLOW for target in bounds):
        return True
    if exact is None:
        return False
    return measured.p50_s > exact.p50_s and measured.queries_per_s < exact.queries_per_s


def time_alone(
    search: Callable[[FloatArray], object], queries_BD: FloatArray, clock: Callable[[], float]
) -> NDArray[np.float64]:
    """float64 [T]: seconds of one query after the other; T is from `MIN_QUERIES` to B.

    Each query is timed in every round and its least time counts: what else the machine did
    meanwhile says nothing about the index.

    Args:
        search: What to time.
        queries_BD: float32 [B, D], in random order; B at least `MIN_QUERIES`.
        clock: Seconds since some moment.
    """
    for row in range(_WARM_UP_QUERIES):
        search(queries_BD[row : row + 1])
    first: list[float] = []
    while len(first) < MIN_QUERIES or (sum(first) < _TIMING_S and len(first) < len(queries_BD)):
        first.append(_seconds(search, queries_BD[len(first) : len(first) + 1], clock))
    timed_TD = queries_BD[: len(first)]
    further = [[_seconds(search, q_D[None], clock) for q_D in timed_TD] for _ in range(_ROUNDS - 1)]
    least_T: NDArray[np.float64] = np.min([first, *further], axis=0)
    return least_T


def _seconds(
    search: Callable[[FloatArray], object], queries_BD: FloatArray, clock: Callable[[], float]
) -> float:
    started = clock()
    search(queries_BD)
    return clock() - started


def time_batches(
    search: Callable[[FloatArray], object], queries_BD: FloatArray, clock: Callable[[], float]
) -> float:
    """Queries a second in batches of `BATCH`, by their median; the last one is filled up.

    Args:
        search: What to time.
        queries_BD: float32 [B, D], B at least 1.
        clock: Seconds since some moment.
    """
    times: list[float] = []
    while len(times) * BATCH < max(MIN_QUERIES, len(queries_BD)) or sum(times) < _TIMING_S:
        rows = range(len(times) * BATCH, (len(times) + 1) * BATCH)
        times.append(_seconds(search, queries_BD.take(rows, axis=0, mode="wrap"), clock))
    return BATCH / float(np.median(times))


def pareto_front(measured: Sequence[Measured]) -> list[Measured]:
    """Those that no other beats in recall, latency or memory without losing in another of them.

    In the order of rising latency.
    """
    kept = [m for m in measured if not any(_dominates(other, m) for other in measured)]
    return sorted(kept, key=lambda m: (m.p50_s, -m.recall))


def _dominates(one: Measured, other: Measured) -> bool:
    pairs = list(zip(one.costs(), other.costs(), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def choose(measured: Sequence[Measured], targets: Sequence[Target]) -> Measured | None:
    """The cheapest setting that meets all targets; None if none does.

    Where recall is aimed at, the cheapest answers one query in the least time; where it is not, the
    cheapest has the highest recall and then the least time. Among settings that take about as long
    (within 10 % of the least, the noise of timings), it needs the least memory, then the shortest
    build, and then it has the highest recall.
    """
    meeting = [m for m in measured if m.shortfall(targets) == 0]
    if not meeting:
        return None
    if not any(target.metric == "recall" for target in targets):
        highest = max(m.recall for m in meeting)
        meeting = [m for m in meeting if m.recall == highest]
    least_s = min(m.p50_s for m in meeting)
    as_fast = [m for m in meeting if m.p50_s <= (1 + _SAME_SPEED) * least_s]
    return min(as_fast, key=lambda m: (m.memory_bytes, m.build_s, -m.recall))


def closest(measured: Sequence[Measured], targets: Sequence[Target]) -> Measured:
    """The setting that misses the targets by least; see `Target.shortfall`."""
    return min(measured, key=lambda m: (m.shortfall(targets), m.p50_s))
