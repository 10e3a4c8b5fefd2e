"""The answer to a batch of queries.

Shapes: B queries, N hits in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

__all__ = ["Hit", "Notice", "StageTimings", "TopKResult"]


@final
@dataclass(frozen=True, slots=True)
class Hit:
    """One label found for one query.

    Attributes:
        label: Row of the label in the label table of the answering version.
        key: The label's key, stable over versions; None if it was not asked for.
        text: The label's text; None if it was not asked for.
        score: Higher is better; `ModelInfo.score_meaning` says what it means.
    """

    label: int
    key: str | None
    text: str | None
    score: float


@final
@dataclass(frozen=True, slots=True)
class StageTimings:
    """Seconds that the server spent on a batch, by stage; the parts of a split batch add up."""

    queue_s: float = 0.0
    features_s: float = 0.0
    encode_s: float = 0.0
    search_s: float = 0.0
    rank_s: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know about some queries of the batch.

    Attributes:
        kind: `fewer_than_k`, `no_known_features`, or what a newer server says.
        queries: Positions of the queries in the batch, ascending.
    """

    kind: str
    queries: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True, eq=False)
class TopKResult(Sequence[list[Hit]]):
    """The best labels of each query: a sequence of lists of hits, held in columns.

    `result[i]` are the hits of query i, best first, ties in order of label.

    Attributes:
        labels: int64 [N], rows of the label table; the hits of query 0 first.
        scores: float32 [N], higher is better.
        counts: int64 [B], hits of each query; fewer than k where there are no more.
        keys: Keys of the N labels, or None if they were not asked for.
        texts: Texts of the N labels, or None if they were not asked for.
        model: Name of the model that answered.
        version: Its version; every hit is from this one.
        bundle_digest: Digest of that version's bundle.
        timings: Where the server spent its time.
        notices: What to know about single queries.
        round_trip_s: Seconds from the call to the whole answer, as the client saw them.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64]
    keys: list[str] | None
    texts: list[str] | None
    model: str
    version: int
    bundle_digest: str
    timings: StageTimings
    notices: tuple[Notice, ...]
    round_trip_s: float

    @override
    def __len__(self) -> int:
        return len(self.counts)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [B + 1]: the hits of query i are offsets[i] to offsets[i + 1]."""
        offsets = np.zeros(len(self.counts) + 1, np.int64)
        np.cumsum(self.counts, out=offsets[1:])
        return offsets

    @overload
    def __getitem__(self, index: int) -> list[Hit]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Hit]]: ...
    @override
    def __getitem__(self, index: int | slice) -> Any:
        offsets = self.offsets
        if isinstance(index, slice):
            return [
                self._hits(offsets[i], offsets[i + 1]) for i in range(*index.indices(len(self)))
            ]
        i = range(len(self))[index]
        return self._hits(offsets[i], offsets[i + 1])

    @override
    def __iter__(self) -> Iterator[list[Hit]]:
        offsets = self.offsets
        for i in range(len(self)):
            yield self._hits(offsets[i], offsets[i + 1])

    def _hits(self, start: int, stop: int) -> list[Hit]:
        none = [None] * (stop - start)
        return list(
            map(
                Hit,
                self.labels[start:stop].tolist(),
                none if self.keys is None else self.keys[start:stop],
                none if self.texts is None else self.texts[start:stop],
                self.scores[start:stop].tolist(),
            )
        )
