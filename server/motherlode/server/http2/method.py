"""What a stream is answered by, and how an answer that is none is worded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import grpc

from motherlode.server.http2.headers import Metadata


def _ignore(_: Exception) -> None:
    """Nobody counts."""


@final
@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service.

    Attributes:
        behavior: Gets the request and the stream. The request is bytes, or an iterator of bytes
            where `takes_stream`. It is an async generator of answers where `is_generator`, else a
            coroutine that returns the answer, or None after it has written its answers itself.
        serialize: Makes bytes of an answer.
        takes_stream: Whether it gets several messages.
        is_generator: Whether it yields its answers.
        note_unread: Gets why bytes are no request, where `behavior` does not see them.
    """

    behavior: Callable[[Any, Any], Any]
    serialize: Callable[[Any], bytes] | None
    takes_stream: bool
    is_generator: bool
    note_unread: Callable[[Exception], None] = _ignore


@final
class CallEndedError(Exception):
    """A call is over, with this status.

    Attributes:
        code: The status.
        details: What the caller is told.
        trailers: Metadata that go with it.
    """

    def __init__(self, code: grpc.StatusCode, details: str = "", trailers: Metadata = ()) -> None:
        self.code = code
        self.details = details
        self.trailers = trailers
        super().__init__(f"{code.name}: {details}")
