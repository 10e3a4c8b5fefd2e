"""Small rankings and their truth, written as nested lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from motherlode.core.queries import IntArray
from motherlode.core.topk import TopK


@dataclass(frozen=True)
class Rows:
    """True labels in compressed rows."""

    indptr: IntArray
    indices: IntArray


def rows_of(labels: Sequence[Sequence[int]]) -> Rows:
    """Compressed rows of one list of labels a query."""
    indptr = np.cumsum([0, *map(len, labels)], dtype=np.int64)
    return Rows(indptr, np.array([*chain.from_iterable(labels)], np.int64))


def top_of(
    rankings: Sequence[Sequence[int]], scores: Sequence[Sequence[float]] | None = None
) -> TopK:
    """Answers of one list of labels a query, best first; scores fall by 1 from 0 if not given."""
    rows = rows_of(rankings)
    falling = [[-float(i) for i in range(len(ranking))] for ranking in rankings]
    values = [*chain.from_iterable(scores if scores is not None else falling)]
    return TopK(rows.indices, np.array(values, np.float32), np.diff(rows.indptr))
