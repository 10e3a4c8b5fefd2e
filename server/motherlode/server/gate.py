"""What a version must show before it serves: it answers right, finds enough, and is fast enough."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from typing_extensions import override

from motherlode.core.errors import BundleError, GateError
from motherlode.core.index import measure_recall
from motherlode.core.queries import FloatArray, Queries, concatenate
from motherlode.core.retriever import Retriever

_SAMPLE_QUERIES = 256
_BATCH_SIZES = (1, 8, 64)
_ROUNDS = 3
# Batches faster than this are fast enough, and too short to compare.
_NEGLIGIBLE_S = 0.002


@final
@dataclass(frozen=True, slots=True)
class GateLimits:
    """How much worse a version may be.

    Attributes:
        recall_tolerance: Than the recall in its manifest, as a share.
        latency_factor: Than the serving version, as a factor on times; 0 does not compare them.
    """

    recall_tolerance: float = 0.02
    latency_factor: float = 3.0


@final
@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured.

    Attributes:
        name: Such as `recall@10` or `p50_s of 8 queries`.
        value: What came out.
        bound: What it must be.
        is_least: Whether the bound is the least value; otherwise it is the largest.
    """

    name: str
    value: float
    bound: float
    is_least: bool

    @property
    def is_met(self) -> bool:
        """Whether the value is within the bound."""
        return self.value >= self.bound if self.is_least else self.value <= self.bound

    @override
    def __str__(self) -> str:
        side = "least" if self.is_least else "most"
        return f"{self.name} is {self.value:.4g}, expected at {side} {self.bound:.4g}"


def warm_up(retriever: Retriever, max_batch: int) -> float:
    """Asks batches of 1, 2, 4, ... queries up to the largest, so that no caller comes first.

    Returns:
        Seconds that a single query usually takes from then on, by the clock: what waits for a disk
        or a GPU makes others wait, too.
    """
    size = 1
    while size <= max_batch:
        _ask(retriever, size)
        size *= 2
    return statistics.median(_single_times(retriever))


def _single_times(retriever: Retriever) -> Iterator[float]:
    """Of a few golden queries that are searched: one without known features takes no time."""
    golden = retriever.bundle.golden
    for row in np.flatnonzero(golden.top.counts)[:_ROUNDS].tolist() or [0]:
        started = time.perf_counter()
        retriever.path.top_k(golden.queries.rows(row, row + 1), golden.k)
        yield time.perf_counter() - started


def check_gate(
    retriever: Retriever, serving: Retriever | None, limits: GateLimits, *, max_batch: int
) -> tuple[Figure, ...]:
    """What was measured of a version that may serve.

    Args:
        retriever: The version.
        serving: What it would replace; None compares no times.
        limits: How much worse it may be.
        max_batch: Largest batch to time, in queries.

    Raises:
        GateError: For the first thing that is not as it must be; names the figure and its bound.
    """
    try:
        retriever.check_golden()
    except BundleError as error:
        raise GateError(str(error)) from error
    num_golden = len(retriever.bundle.golden.queries)
    figures = [Figure("golden queries", num_golden, num_golden, is_least=True)]
    for figure in _measured(retriever, serving, limits, max_batch):
        if not figure.is_met:
            raise GateError(str(figure))
        figures.append(figure)
    return tuple(figures)


def _measured(
    retriever: Retriever, serving: Retriever | None, limits: GateLimits, max_batch: int
) -> Iterator[Figure]:
    yield from _recalls(retriever, limits.recall_tolerance)
    if serving is not None and limits.latency_factor:
        for size in _BATCH_SIZES:
            if size <= max_batch:
                yield _latency(retriever, serving, size, limits.latency_factor)


def _recalls(retriever: Retriever, tolerance: float) -> Iterator[Figure]:
    """Recall against exact search, for each depth that the manifest has a figure for."""
    bundle = retriever.bundle
    if bundle.index.is_exact:
        return
    sample_BD = bundle.query_sample()
    sample_BD = (bundle.golden.embeddings_BD if sample_BD is None else sample_BD)[:_SAMPLE_QUERIES]
    for name, promised in bundle.manifest.index.recall.items():
        k = min(int(name.removeprefix("R@")), len(bundle.labels))
        recall = measure_recall(bundle.index, bundle.labels_LD, sample_BD, k)
        bound = max(0.0, promised - tolerance - _chance(promised, sample_BD, k))
        yield Figure(f"recall@{k}", recall, bound, is_least=True)


def _chance(share: float, sample_BD: FloatArray, k: int) -> float:
    """Twice the standard error of a share of so many hits."""
    return 2 * math.sqrt(max(0.0, share * (1 - share)) / (len(sample_BD) * k))


def _latency(new: Retriever, old: Retriever, size: int, factor: float) -> Figure:
    """The median over batches of both in turns.

    It is processor time: how long this thread waited for its turn says nothing about the version.
    """
    times_s: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for retriever, seconds in zip((new, old), times_s, strict=True):
            started = time.thread_time()
            _ask(retriever, size)
            seconds.append(time.thread_time() - started)
    median_s, old_s = map(statistics.median, times_s)
    bound_s = max(factor * old_s, _NEGLIGIBLE_S)
    return Figure(f"p50_s of {size} queries", median_s, bound_s, is_least=False)


def _ask(retriever: Retriever, size: int) -> None:
    """One batch of the version's own golden queries, over and over if they are too few."""
    golden = retriever.bundle.golden
    retriever.path.top_k(_repeat(golden.queries, size), golden.k)


def _repeat(queries: Queries, size: int) -> Queries:
    copies = -(-size // len(queries))
    return concatenate([queries] * copies).rows(0, size)
