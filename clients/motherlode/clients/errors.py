"""Every error that a client raises.

ClientError
├── InvalidArgumentError     the request is wrong, says this client or the server: names the field
├── NotFoundError            no such model, version, alias or label
├── UnsupportedError         a valid request that this server cannot answer
├── RefusedError             the server will not load that version: it did not pass a stage
├── TooLargeError            one query alone is more than the server takes; larger batches are split
├── OverloadedError          the server's queue is full; says when to try again
├── UnavailableError         nothing answers at the address, or the server is starting or stopping
├── DeadlineError            no answer in time
├── AccessError              the server refuses this caller
├── VersionChangedError      the model kept changing its version while a split batch was answered
├── CallCancelledError       the call was cancelled
└── ServerError              the server failed, or its answer makes no sense
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from typing_extensions import override

__all__ = [
    "AccessError",
    "CallCancelledError",
    "ClientError",
    "DeadlineError",
    "FieldViolation",
    "InvalidArgumentError",
    "NotFoundError",
    "OverloadedError",
    "RefusedError",
    "ServerError",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedError",
    "VersionChangedError",
]


@final
@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request.

    Attributes:
        field: Path of the field, such as `queries.embeddings.shape`.
        description: What was expected and what came.
    """

    field: str
    description: str


class ClientError(Exception):
    """Root of all errors raised by a client.

    Attributes:
        message: What went wrong, in one line.
        reason: The server's `ErrorInfo.reason`; empty where it gave none.
        request_id: By which the server's log finds the call; empty where the server gave none.
        queries: First and one past the last position of the queries that the error is about, if
            the batch was split; positions in `message` count from the first. None otherwise.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.request_id = ""
        self.queries: tuple[int, int] | None = None

    @override
    def __str__(self) -> str:
        if self.queries is None:
            return self.message
        first, stop = self.queries
        return f"in queries {first} to {stop - 1} of the batch: {self.message}"


class InvalidArgumentError(ClientError, ValueError):
    """The request is wrong.

    Attributes:
        violations: The wrong fields, as far as they are known.
    """

    def __init__(
        self, message: str, *, reason: str = "", violations: tuple[FieldViolation, ...] = ()
    ) -> None:
        super().__init__(message, reason=reason)
        self.violations = violations

    @classmethod
    def of_field(cls, field: str, *, expected: str, actual: object) -> InvalidArgumentError:
        """The error about one field, found before anything was sent."""
        description = f"expected {expected}, got {actual}"
        return cls(f"{field}: {description}", violations=(FieldViolation(field, description),))


class NotFoundError(ClientError):
    """No such model, version, alias or label."""


class RefusedError(ClientError):
    """The server will not load a version.

    `reason` is GATE_REFUSED where it is not good enough, LOAD_REFUSED where it cannot be loaded.
    """


class UnsupportedError(ClientError):
    """A valid request that this server cannot answer."""


class TooLargeError(ClientError):
    """One query, or the answer to it, is larger than the server takes."""


class OverloadedError(ClientError):
    """The server's queue is full.

    Attributes:
        retry_after_s: Seconds after which the server expects room; None if it did not say.
    """

    def __init__(
        self, message: str, *, reason: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class UnavailableError(ClientError):
    """Nothing answers at the address, or the server is starting or stopping."""


class DeadlineError(ClientError, TimeoutError):
    """No answer in time."""


class AccessError(ClientError):
    """The server refuses this caller."""


class VersionChangedError(ClientError):
    """The model kept changing its version while the parts of a batch were answered."""


class CallCancelledError(ClientError):
    """The call was cancelled, here or by the server."""


class ServerError(ClientError):
    """The server failed, or its answer makes no sense."""

    @override
    def __str__(self) -> str:
        # The server's log says more, to those who know what to look for.
        text = super().__str__()
        return f"{text} (request {self.request_id})" if self.request_id else text
