"""What looks at calls when they are done: recall, the log of slow and failed calls, and traces."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from motherlode.core.errors import InvalidInputError
from motherlode.server import status
from motherlode.server.call import Answer, Call
from motherlode.server.recall import RecallSampler
from motherlode.server.slot import ServedVersion

if TYPE_CHECKING:
    from motherlode.server.tracing import Tracing

logger = logging.getLogger(__name__)

_LINES_PER_SECOND = 10.0
_BURST = 20.0


@final
class Allowance:
    """How many lines may be written: `burst` at once, and `rate` a second over time."""

    def __init__(
        self,
        rate: float = _LINES_PER_SECOND,
        burst: float = _BURST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._last = burst, clock()
        self._num_refused = 0

    def take(self) -> int | None:
        """Lines refused since the last that was allowed, or None if this one is refused too."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._last) * self._rate)
        self._last = now
        if self._left < 1:
            self._num_refused += 1
            return None
        self._left -= 1
        refused, self._num_refused = self._num_refused, 0
        return refused


@final
class Witness:
    """Sees each call once, after its outcome is known. Belongs to the event loop's thread.

    Args:
        slow_call_s: Seconds from which on an answered call is logged; infinity for never.
        recall: Looks at answers, if there is one.
        tracing: Makes spans of calls, if there is one.
        allowance: Of lines for calls.
    """

    def __init__(
        self,
        slow_call_s: float = math.inf,
        *,
        recall: RecallSampler | None = None,
        tracing: Tracing | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self._slow_call_s = slow_call_s
        self._recall = recall
        self._tracing = tracing
        self._allowance = allowance or Allowance()

    def answered(self, method: str, call: Call, answer: Answer, duration_s: float) -> None:
        """A call was answered, `duration_s` after it arrived."""
        if self._recall is not None:
            self._recall.offer(call, answer)
        if duration_s >= self._slow_call_s:
            fields = _fields(method, "OK", call.served, duration_s) | _stages(call, answer)
            self._log(logging.WARNING, "slow call", fields)
        if self._tracing is not None:
            # After the answer, which is on its way by then.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._tracing.answered, method, call, answer, duration_s)

    def failed(
        self,
        method: str,
        code: str,
        served: ServedVersion | None,
        error: BaseException,
        duration_s: float,
    ) -> None:
        """A call ended otherwise."""
        if self._tracing is not None:
            self._tracing.failed(method, code, served, duration_s)
        fields = _fields(method, code, served, duration_s)
        if isinstance(error, Exception):
            fields["reason"] = status.reason_of(error)
        if isinstance(error, InvalidInputError):
            # Not its value, which may be a person's query.
            fields["field"] = error.field
        self._log(logging.INFO, "failed call", fields)

    def _log(self, level: int, what: str, fields: dict[str, Any]) -> None:
        if not logger.isEnabledFor(level) or (refused := self._allowance.take()) is None:
            return
        if refused:
            fields["lines_left_out"] = refused
        logger.log(level, what, extra=fields)


def _fields(
    method: str, code: str, served: ServedVersion | None, duration_s: float
) -> dict[str, Any]:
    fields: dict[str, Any] = {"method": method, "code": code, "duration_s": round(duration_s, 6)}
    if served is not None:
        fields |= {"model": served.model, "version": served.version}
    return fields


def _stages(call: Call, answer: Answer) -> dict[str, Any]:
    times = answer.times
    seconds = {
        "queue_s": answer.queue_s,
        "features_s": times.features_s,
        "encode_s": times.encode_s,
        "search_s": times.search_s,
        "rank_s": times.rank_s,
    }
    rounded = {name: round(value, 6) for name, value in seconds.items()}
    return {"num_queries": len(call.queries), "k": call.k, **rounded}
