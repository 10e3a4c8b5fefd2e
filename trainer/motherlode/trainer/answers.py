"""Answers to many queries, asked for in batches."""

from __future__ import annotations

from typing import Protocol

from motherlode.core.queries import Queries
from motherlode.core.topk import TopK, concatenate

_BATCH = 1024


class AnswersTopK(Protocol):
    """What can be asked: a retriever, or the parts of one."""

    def top_k(self, queries: Queries, k: int) -> TopK:
        """The best k labels of each query."""


def answers(path: AnswersTopK, queries: Queries, k: int) -> TopK:
    """The best k labels of many queries."""
    return concatenate(
        [
            path.top_k(queries.rows(start, min(start + _BATCH, len(queries))), k)
            for start in range(0, len(queries), _BATCH)
        ]
    )
