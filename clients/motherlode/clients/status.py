"""From a gRPC status to the error that a caller sees: the only place that knows the codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from motherlode.clients import errors
from motherlode.clients.errors import ClientError, FieldViolation

__all__ = ["error_from_rpc", "error_from_status"]

_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"

_CLASSES: dict[str, type[ClientError]] = {
    "CANCELLED": errors.CallCancelledError,
    "DEADLINE_EXCEEDED": errors.DeadlineError,
    "FAILED_PRECONDITION": errors.UnsupportedError,
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "NOT_FOUND": errors.NotFoundError,
    "OUT_OF_RANGE": errors.InvalidArgumentError,
    "PERMISSION_DENIED": errors.AccessError,
    "RESOURCE_EXHAUSTED": errors.OverloadedError,
    "UNAUTHENTICATED": errors.AccessError,
    "UNAVAILABLE": errors.UnavailableError,
    "UNIMPLEMENTED": errors.UnsupportedError,
}

# What gRPC says of a connection that did not come about, and what that tells of both sides.
_MISUNDERSTANDINGS = (
    ("WRONG_VERSION_NUMBER", "it does not speak TLS, and this client does"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is of no authority that this client trusts"),
    ("Hostname Verification", "its certificate is for another name"),
    ("Socket closed", "it hung up: it may want TLS, or a certificate of the caller"),
    ("Connection reset", "it hung up: it may want TLS, or a certificate of the caller"),
)

_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def error_from_rpc(error: Any, *, target: str, timeout_s: float | None = None) -> ClientError:
    """The client's error for a failed call.

    Args:
        error: What grpc or grpc.aio raised: it has `code()`, `details()` and `trailing_metadata()`.
        target: The address that was called, for the message.
        timeout_s: The call's deadline in seconds, for the message.
    """
    name = error.code().name
    message = error.details() or ""
    trailers = dict(error.trailing_metadata() or ())
    status = _status_of(trailers)
    if status is None and name == "UNAVAILABLE":
        message = f"no server answers at {target} ({_cause_of(message)})"
    if status is None and name == "DEADLINE_EXCEEDED" and timeout_s is not None:
        message = f"no answer from {target} within {timeout_s:.3g} s"
    found = _error(name, message, list(status.details) if status is not None else [])
    found.request_id = str(trailers.get(_REQUEST_ID_KEY, ""))
    return found


def error_from_status(
    code: int,
    message: str,
    *,
    reason: str = "",
    retry_after_s: float = 0.0,
    request_id: str = "",
) -> ClientError:
    """The client's error for a `google.rpc.Code` that came inside a message of a stream."""
    details = [_pack(error_details_pb2.ErrorInfo(reason=reason))]
    if retry_after_s > 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after_s * 1e9))
        details.append(_pack(retry))
    error = _error(_NAMES.get(code, "UNKNOWN"), message, details)
    error.request_id = request_id
    return error


def _error(name: str, message: str, details: list[Any]) -> ClientError:
    message = message or f"the server said {name}"
    reason = next((info.reason for info in _unpack(details, error_details_pb2.ErrorInfo)), "")
    if name == "RESOURCE_EXHAUSTED":
        return _exhausted(message, reason, details)
    if name in ("INVALID_ARGUMENT", "OUT_OF_RANGE"):
        requests = _unpack(details, error_details_pb2.BadRequest)
        violations = tuple(
            FieldViolation(violation.field, violation.description)
            for request in requests
            for violation in request.field_violations
        )
        return errors.InvalidArgumentError(message, reason=reason, violations=violations)
    if reason in ("GATE_REFUSED", "LOAD_REFUSED"):
        return errors.RefusedError(message, reason=reason)
    return _CLASSES.get(name, errors.ServerError)(message, reason=reason)


def _exhausted(message: str, reason: str, details: list[Any]) -> ClientError:
    """Too busy, which passes, or too large, which does not: gRPC has one code for both."""
    for retry in _unpack(details, error_details_pb2.RetryInfo):
        retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        return errors.OverloadedError(message, reason=reason, retry_after_s=retry_after_s)
    # The second is gRPC's own refusal of a message above its size limit; it comes without details.
    if "TOO_LARGE" in reason or "larger than max" in message:
        return errors.TooLargeError(message, reason=reason)
    return errors.OverloadedError(message, reason=reason)


def _pack(message: Any) -> Any:
    detail = AnyMessage()
    detail.Pack(message)
    return detail


def _unpack(details: list[Any], kind: type[Any]) -> Iterable[Any]:
    for detail in details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            detail.Unpack(message)
            yield message


def _status_of(trailers: Mapping[str, Any]) -> Any:
    value = trailers.get(_DETAILS_KEY)
    return None if value is None else status_pb2.Status.FromString(value)


def _cause_of(message: str) -> str:
    """The end of gRPC's chain of causes: `Connection refused`, say; or what that one means."""
    if "last error" in message:
        # No connection came about. A call that breaks off later ends in the same words.
        for sign, meaning in _MISUNDERSTANDINGS:
            if sign in message:
                return meaning
    cause = message.rpartition(": ")[2].partition(" (")[0].strip(" []")
    return cause.lower() or "no cause given"
