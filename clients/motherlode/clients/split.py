"""How a batch is cut into parts that the server takes."""

from __future__ import annotations

from typing import final

import numpy as np

from motherlode.clients.info import Limits
from motherlode.clients.queries import QueryBatch
from motherlode.clients.question import Question

__all__ = ["Splitter"]


@final
class Splitter:
    """The largest parts of a batch that fit a server's limits, taken from the front.

    A query that is too large on its own makes a part of its own: the server then says what is wrong
    with it.
    """

    def __init__(self, queries: QueryBatch, question: Question, limits: Limits | None) -> None:
        """Plan a batch; without limits nothing is cut until `halve` is called."""
        self._num_queries = len(queries)
        self._ends = np.cumsum(queries.sizes_B)
        self._max_queries = self._num_queries
        self._max_request_bytes = int(self._ends[-1])
        if limits is not None:
            self._apply(limits, question)

    def _apply(self, limits: Limits, question: Question) -> None:
        # A part that is longer than the server's queue could never enter it.
        caps = [limits.max_queries_per_call, limits.max_queued_queries]
        if limits.max_message_bytes:
            caps.append(max(1, limits.max_message_bytes // question.answer_bytes))
            self._max_request_bytes = limits.max_message_bytes - question.fixed_bytes
        self._max_queries = min([self._max_queries, *(cap for cap in caps if cap)])

    def stop(self, start: int) -> int:
        """One past the last query of the part that begins at `start`."""
        before = int(self._ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(self._ends, before + self._max_request_bytes, side="right"))
        return min(max(fitting, start + 1), start + self._max_queries, self._num_queries)

    def halve(self, num_queries: int) -> None:
        """Make parts at most half as long as one that proved too large."""
        self._max_queries = max(1, num_queries // 2)
