"""From errors to gRPC status: the one table, and the details of google.rpc that go with it."""

from __future__ import annotations

from typing import Any, NoReturn, final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from motherlode.core.errors import (
    InvalidInputError,
    MotherlodeError,
    NotFoundError,
    OverloadedError,
    RequestTooLargeError,
    UnavailableError,
    UnsupportedError,
)
from motherlode.server import correlation
from motherlode.server.call import ExpiredError
from motherlode.server.failure import LoadRefusedError, RepositoryUnusableError

DOMAIN = "motherlode"


@final
class UnimplementedError(MotherlodeError):
    """A method that the protocol knows and this server does not offer."""


@final
class UnauthenticatedError(MotherlodeError):
    """The caller did not show a key that is good.

    Attributes:
        reason: One word for programs, such as KEY_EXPIRED.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


@final
class PermissionDeniedError(MotherlodeError):
    """The caller's key is good, but not for this."""


@final
class StreamIdleError(MotherlodeError):
    """The caller of a stream asked nothing for too long."""


# The first row whose class fits counts. Whatever fits none is INTERNAL, without a word of detail.
TABLE: tuple[tuple[type[Exception], grpc.StatusCode, str], ...] = (
    (RequestTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"),
    (InvalidInputError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    (NotFoundError, grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    (UnsupportedError, grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED"),
    (LoadRefusedError, grpc.StatusCode.FAILED_PRECONDITION, "LOAD_REFUSED"),
    (RepositoryUnusableError, grpc.StatusCode.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE"),
    (OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    (ExpiredError, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    (UnimplementedError, grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"),
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (PermissionDeniedError, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    # So that clients open another one, or ask without.
    (StreamIdleError, grpc.StatusCode.UNAVAILABLE, "STREAM_IDLE"),
)

# Trailers have little room, and a server with a thousand models would name them all.
_LONGEST_MESSAGE = 1000
_RETRY_WHEN_LOADED_S = 1.0


def code_of(error: Exception) -> grpc.StatusCode:
    """The status code of an error."""
    return _row_of(error)[0]


def reason_of(error: Exception) -> str:
    """The `ErrorInfo.reason` of an error: one word for programs."""
    if isinstance(error, NotFoundError):
        return f"{error.kind.upper()}_NOT_FOUND"
    if isinstance(error, UnavailableError | OverloadedError | UnauthenticatedError):
        return error.reason
    if isinstance(error, LoadRefusedError) and error.failure.stage == "gate":
        return "GATE_REFUSED"
    return _row_of(error)[1]


def message_of(error: Exception) -> str:
    """What the caller is told; nothing of an error that is not in the table."""
    if code_of(error) is grpc.StatusCode.INTERNAL:
        return "internal error; the server's log says more"
    return str(error)[:_LONGEST_MESSAGE]


def retry_after_s_of(error: Exception) -> float:
    """Seconds after which the same request may succeed; 0 where a retry cannot help."""
    if isinstance(error, OverloadedError):
        return error.retry_after_s
    is_coming = isinstance(error, UnavailableError) and error.reason in {
        "STARTING",
        "MODEL_NOT_LOADED",
        "RELOADING",
    }
    return _RETRY_WHEN_LOADED_S if is_coming else 0.0


def status_of(error: Exception) -> status_pb2.Status:
    """The whole status: code, message and details."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(
            reason=reason_of(error), domain=DOMAIN, metadata=_metadata_of(error)
        )
    ]
    if isinstance(error, InvalidInputError):
        details.append(_bad_request(error))
    if retry_after_s := retry_after_s_of(error):
        delay = Duration()
        delay.FromNanoseconds(int(retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=code_of(error).value[0], message=message_of(error), details=map(_packed, details)
    )


def failure_of(
    error: Exception,
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """Code, details and trailing metadata of the status of an error."""
    failure = rpc_status.to_status(status_of(error))
    return failure.code, failure.details, failure.trailing_metadata


async def abort(context: Any, error: Exception) -> NoReturn:
    """Ends a call with the status of an error, whose traceback is let go."""
    forget_frames(error)
    await context.abort(*failure_of(error))
    raise AssertionError("abort raises")


def forget_frames(error: Exception) -> None:
    """Lets go of the frames that an error came through, once nobody reads its traceback any more.

    They refer to the error in turn, by way of gRPC's state and of the call's future, and to the
    version that the call relied on. Such a cycle would keep a retired version in memory until the
    next full collection, which is rare.
    """
    error.__traceback__ = None


def _row_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    for kind, code, reason in TABLE:
        if isinstance(error, kind):
            return code, reason
    return grpc.StatusCode.INTERNAL, "INTERNAL"


def _metadata_of(error: Exception) -> dict[str, str]:
    if isinstance(error, InvalidInputError):
        return {"field": error.field, "expected": error.expected, "actual": error.actual}
    if isinstance(error, ExpiredError):
        return {"stage": error.stage}
    if isinstance(error, LoadRefusedError):
        return {"stage": error.failure.stage, "reason": error.failure.reason}
    if code_of(error) is grpc.StatusCode.INTERNAL:
        # All that a caller can quote, and by which the log finds the rest.
        request_id = correlation.current().request_id
        return {"request_id": request_id} if request_id else {}
    return {}


def _bad_request(error: InvalidInputError) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.field, description=f"expected {error.expected}, got {error.actual}"
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _packed(detail: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
