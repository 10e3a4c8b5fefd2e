"""Asks two published versions the same queries, and tells how their answers differ.

Shapes: B queries, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import final

import numpy as np
import torch

from motherlode.core.errors import ConfigError
from motherlode.core.index import set_index_threads
from motherlode.core.queries import IntArray, Queries, TextQueries, concatenate
from motherlode.core.records import RecordBatch, read_records
from motherlode.core.repository import Repository, parse_model_ref
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.core.topk import concatenate as concatenate_answers
from motherlode.scoring.comparison import Comparison, compare_answers, rows_in

__all__ = ["DiffRequest", "Latency", "Mover", "Named", "VersionDiff", "diff_versions"]

_BATCH = 1024
_TIMED_QUERIES = 200
_TIMED_ROUNDS = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DiffRequest:
    """What to compare.

    Attributes:
        repository: Folder of the published models.
        first: MODEL, MODEL@VERSION or MODEL@ALIAS.
        second: Likewise; of the same model or another.
        queries: File of queries; labels are not needed.
        k: Labels per query.
        num_movers: Most queries to show.
        num_threads: Threads of one encode or search.
    """

    repository: Path
    first: str
    second: str
    queries: Path
    k: int = 10
    num_movers: int = 5
    num_threads: int = 1


@final
@dataclass(frozen=True, slots=True)
class Named:
    """A hit by the label's key, text and score."""

    key: str
    text: str
    score: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """A query whose answers differ much.

    Attributes:
        id: Of the record.
        text: Of the query; None where it is no text.
        overlap: Share of hits that both gave.
        first: The first version's answer.
        second: The second's.
    """

    id: str
    text: str | None
    overlap: float
    first: tuple[Named, ...]
    second: tuple[Named, ...]


@final
@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that `Retriever.top_k` takes for one query alone, each the least of some rounds."""

    p50_s: float
    p99_s: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDiff:
    """How two versions differ.

    Attributes:
        names: Both as MODEL@VERSION.
        digests: Of both bundles.
        score_meanings: What their scores mean; where they differ, the shift of scores says nothing.
        num_queries: B.
        k: Labels per query.
        comparison: Of their answers.
        movers: The queries with the least overlap, least first.
        latencies: Of both, measured in turns.
        num_labels: Of both.
        added: Keys of the labels that the second alone has, in its order.
        removed: Keys of the labels that the first alone has, in its order.
    """

    names: tuple[str, str]
    digests: tuple[str, str]
    score_meanings: tuple[str, str]
    num_queries: int
    k: int
    comparison: Comparison
    movers: tuple[Mover, ...]
    latencies: tuple[Latency, Latency]
    num_labels: tuple[int, int]
    added: list[str]
    removed: list[str]


def diff_versions(request: DiffRequest) -> VersionDiff:
    """Asks both versions all queries of a file, by `Retriever.top_k` alone.

    Raises:
        NotFoundError: If there is no such model or version.
        ConfigError: If k is more than either has labels, or the versions take no queries of the
            same kind.
        DataError: If the file is missing, broken or empty.
        InvalidQueryError: If one of the versions refuses the queries.
        BundleError: If a bundle cannot be loaded.
    """
    repository = Repository(request.repository)
    first, second = (
        Retriever.load(repository, *parse_model_ref(name))
        for name in (request.first, request.second)
    )
    _check_k(request.k, first, second)
    queries, ids = _read(request.queries, first, second)
    with _threads(request.num_threads):
        tops = _answers(first, queries, request.k), _answers(second, queries, request.k)
        latencies = _time_in_turns((first, second), queries, request.k)
    rows = rows_in(first.labels, second.labels)
    comparison = compare_answers(*tops, rows)
    return VersionDiff(
        names=(f"{first.model}@{first.version}", f"{second.model}@{second.version}"),
        digests=(first.digest, second.digest),
        score_meanings=(first.manifest.score_meaning, second.manifest.score_meaning),
        num_queries=len(queries),
        k=request.k,
        comparison=comparison,
        movers=tuple(
            _mover(i, queries, ids, comparison, (first, second), tops)
            for i in comparison.movers(request.num_movers).tolist()
        ),
        latencies=latencies,
        num_labels=(len(first.labels), len(second.labels)),
        added=second.labels.keys_of(np.flatnonzero(rows < 0)),
        removed=first.labels.keys_of(_missing(rows, len(first.labels))),
    )


def _check_k(k: int, first: Retriever, second: Retriever) -> None:
    num_labels = min(len(first.labels), len(second.labels))
    if not 1 <= k <= num_labels:
        raise ConfigError("k", expected=f"1 to {num_labels}, the labels of both", actual=k)


def _read(path: Path, first: Retriever, second: Retriever) -> tuple[Queries, list[str]]:
    """The queries of a file and the ids of their records."""
    kinds = [kind for kind in first.query_kinds if kind in second.query_kinds]
    if not set(kinds) - {"embeddings"}:
        expected = f"versions that both take {' or '.join(first.query_kinds)}"
        raise ConfigError("models", expected=expected, actual=" or ".join(second.query_kinds))
    batches: list[RecordBatch] = list(
        read_records(path, batch_size=_BATCH, num_features=first.num_features, kinds=kinds)
    )
    queries = concatenate([batch.queries for batch in batches])
    for retriever in (first, second):
        retriever.validate(queries, 1)
    return queries, [name for batch in batches for name in batch.ids]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    set_index_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _answers(retriever: Retriever, queries: Queries, k: int) -> TopK:
    starts = range(0, len(queries), _BATCH)
    return concatenate_answers(
        [retriever.top_k(queries.rows(i, min(i + _BATCH, len(queries))), k) for i in starts]
    )


def _time_in_turns(
    retrievers: tuple[Retriever, Retriever], queries: Queries, k: int
) -> tuple[Latency, Latency]:
    """Both in turns, query by query, so that other work on the machine harms both alike."""
    count = min(_TIMED_QUERIES, len(queries))
    chosen = np.linspace(0, len(queries) - 1, count).astype(np.int64).tolist()
    least = np.full((2, count), np.inf)
    for place, i in enumerate(chosen):
        query = queries.rows(i, i + 1)
        for turn in range(2 * _TIMED_ROUNDS):
            # Which of them goes first changes, too: the first finds the query out of the caches.
            which = (turn + place) % 2
            started = perf_counter()
            retrievers[which].top_k(query, k)
            least[which, place] = min(least[which, place], perf_counter() - started)
    return _latency(least[0].tolist()), _latency(least[1].tolist())


def _latency(times_s: list[float]) -> Latency:
    p50, p99 = np.quantile(times_s, [0.5, 0.99]).tolist()
    return Latency(p50, p99)


def _mover(
    i: int,
    queries: Queries,
    ids: list[str],
    comparison: Comparison,
    retrievers: tuple[Retriever, Retriever],
    tops: tuple[TopK, TopK],
) -> Mover:
    first, second = (_named(*pair, i) for pair in zip(retrievers, tops, strict=True))
    return Mover(
        id=ids[i],
        text=queries.texts[i] if isinstance(queries, TextQueries) else None,
        overlap=float(comparison.overlaps_B[i]),
        first=first,
        second=second,
    )


def _named(retriever: Retriever, top: TopK, i: int) -> tuple[Named, ...]:
    rows, scores = top.row(i)
    labels = retriever.labels
    named = zip(labels.keys_of(rows), labels.texts_of(rows), scores.tolist(), strict=True)
    return tuple(Named(*hit) for hit in named)


def _missing(rows: IntArray, num_labels: int) -> IntArray:
    """int64: the rows from 0 to num_labels that are not among `rows`."""
    is_there_L = np.zeros(num_labels, np.bool_)
    is_there_L[rows[rows >= 0]] = True
    return np.flatnonzero(~is_there_L)
