"""Calls for tests of what waits before the engine: no retriever, no answers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from motherlode.core.queries import TextQueries
from motherlode.server.call import Answer, Call
from motherlode.server.slot import ServedVersion


def waiting_call(
    num_queries: int = 1,
    *,
    caller: str = "",
    k: int = 1,
    future: asyncio.Future[Answer] | None = None,
    **fields: Any,
) -> Call:
    """A call that can be queued and taken; another k puts it into another group."""
    # Where no future is given, the call is never to be answered.
    answer = cast("asyncio.Future[Answer]", future)
    queries = TextQueries([str(i) for i in range(num_queries)])
    return Call(cast("ServedVersion", None), queries, k, answer, caller=caller, **fields)
