"""What ties a call to the logs and traces of its caller: a request id, and the trace it is part of.

Each call has a context of its own, so what is noted at its start is there for everything that is
logged or raised about it.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import NamedTuple, final

REQUEST_ID = "x-request-id"
_NO_TRACE: Mapping[str, str] = MappingProxyType({})
_TRACE_KEYS = frozenset({"traceparent", "tracestate"})
# What comes from outside goes into logs and headers, and may neither fill nor forge them.
_ALLOWED_ID = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}")


@final
class Correlation(NamedTuple):
    """Where a call belongs.

    Attributes:
        request_id: The caller's, or one made here; empty outside of calls.
        trace: Headers `traceparent` and `tracestate`, as they came.
    """

    request_id: str = ""
    trace: Mapping[str, str] = _NO_TRACE


_NOWHERE = Correlation()
_current: ContextVar[Correlation] = ContextVar("correlation", default=_NOWHERE)
# Random for the process and counted within it: as good as random, and cheaper.
_PREFIX = secrets.token_hex(6)
_numbers = itertools.count(1)


def begin_call(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str], ...]:
    """Notes where a call belongs, by its caller's metadata; gives what every end of it tells."""
    request_id, trace = "", _NO_TRACE
    for key, value in metadata:
        if key == REQUEST_ID and _ALLOWED_ID.fullmatch(str(value)):
            request_id = str(value)
        elif key in _TRACE_KEYS:
            trace = {**trace, key: str(value)}
    request_id = request_id or f"{_PREFIX}-{next(_numbers):x}"
    _current.set(Correlation(request_id, trace))
    return ((REQUEST_ID, request_id),)


def current() -> Correlation:
    """Where the call belongs that this runs for."""
    return _current.get()


def stamp(record: logging.LogRecord) -> bool:
    """A filter that lets every record pass, with the request id of its call."""
    request_id = _current.get().request_id
    if request_id and not hasattr(record, "request_id"):
        record.request_id = request_id
    return True


def stamp_logs() -> None:
    """Makes all handlers that are set up now write the request id, where there is one."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(stamp)
