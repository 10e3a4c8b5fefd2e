"""Making things in a thread while what was made before is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")

_AHEAD = 2


def made_ahead(
    make: Callable[[_Argument], _Result], arguments: Iterable[_Argument]
) -> Generator[_Result, None, None]:
    """As `map`, but a thread makes the next two while the last is in use.

    Worth it where both the making and the use let go of Python's lock for most of their time.

    Raises:
        Exception: What the making of the next result raised.
    """
    coming: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="motherlode-ahead") as thread:
        try:
            for argument in arguments:
                coming.append(thread.submit(make, argument))
                if len(coming) > _AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
