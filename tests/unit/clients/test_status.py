from __future__ import annotations

from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from motherlode.clients import errors
from motherlode.clients.errors import ClientError
from motherlode.clients.status import error_from_rpc, error_from_status


def rpc_error(code: grpc.StatusCode, message: str = "it failed", *details):
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    metadata = [("grpc-status-details-bin", status.SerializeToString())] if details else []
    return SimpleNamespace(
        code=lambda: code, details=lambda: message, trailing_metadata=lambda: metadata
    )


def mapped(*args) -> ClientError:
    return error_from_rpc(rpc_error(*args), target="host:1", timeout_s=2.0)


RETRY = error_details_pb2.RetryInfo()
RETRY.retry_delay.FromMilliseconds(1500)

EXPECTED = {
    grpc.StatusCode.CANCELLED: errors.CallCancelledError,
    grpc.StatusCode.UNKNOWN: errors.ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.PERMISSION_DENIED: errors.AccessError,
    grpc.StatusCode.UNAUTHENTICATED: errors.AccessError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.UnsupportedError,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnsupportedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.INTERNAL: errors.ServerError,
    grpc.StatusCode.DATA_LOSS: errors.ServerError,
}


@pytest.mark.parametrize("code", EXPECTED, ids=lambda code: code.name)
def test_each_code_has_its_error(code):
    assert type(mapped(code)) is EXPECTED[code]
    assert type(error_from_status(code.value[0], "text", reason="WHY")) is EXPECTED[code]
    assert error_from_status(code.value[0], "text", reason="WHY").reason == "WHY"


def test_an_overload_within_a_stream_says_when_to_come_back():
    error = error_from_status(8, "queue full", reason="QUEUE_FULL", retry_after_s=0.25)
    assert isinstance(error, errors.OverloadedError)
    assert error.retry_after_s == 0.25


def test_a_number_that_is_no_code_is_a_server_error():
    assert type(error_from_status(99, "text")) is errors.ServerError


def test_field_violations_reach_the_caller():
    request = error_details_pb2.BadRequest()
    request.field_violations.add(field="k", description="expected 1 to 50, got 99")
    info = error_details_pb2.ErrorInfo(reason="K_TOO_LARGE")
    error = mapped(grpc.StatusCode.INVALID_ARGUMENT, "k: too large", info, request)
    assert isinstance(error, errors.InvalidArgumentError)
    assert error.reason == "K_TOO_LARGE"
    assert error.violations == (errors.FieldViolation("k", "expected 1 to 50, got 99"),)


def test_a_full_queue_says_when_to_come_back():
    error = mapped(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", RETRY)
    assert isinstance(error, errors.OverloadedError)
    assert error.retry_after_s == 1.5


def test_an_overload_without_a_time_is_not_for_retrying():
    error = mapped(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
    assert isinstance(error, errors.OverloadedError)
    assert error.retry_after_s is None


def test_a_request_that_is_too_large_is_no_overload():
    info = error_details_pb2.ErrorInfo(reason="REQUEST_TOO_LARGE")
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(mapped(code, "too many queries", info)) is errors.TooLargeError
    message = "CLIENT: Received message larger than max (5 vs. 4)"
    assert type(mapped(code, message)) is errors.TooLargeError


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Tls handshake failed: SSL_ERROR_SSL: WRONG_VERSION_NUMBER: OK", "does not speak TLS"),
        ("CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "no authority"),
        ("UNAUTHENTICATED: Hostname Verification Check failed.", "for another name"),
        ("Socket closed", "it may want TLS"),
        ("recvmsg: Connection reset by peer", "it may want TLS"),
    ],
)
def test_a_connection_that_does_not_come_about_has_a_hint(said, meant):
    message = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: {said}"
    error = mapped(grpc.StatusCode.UNAVAILABLE, message)
    assert str(error).startswith("no server answers at host:1 (it")
    assert meant in str(error)


def test_a_call_that_breaks_off_has_no_hint():
    error = mapped(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    assert str(error) == "no server answers at host:1 (socket closed)"


def test_an_error_has_the_id_that_the_server_gave_and_a_bug_shows_it():
    info = error_details_pb2.ErrorInfo(reason="INTERNAL")
    failed = rpc_error(grpc.StatusCode.INTERNAL, "internal error", info)
    trailers = [*failed.trailing_metadata(), ("x-request-id", "order-12")]
    failed.trailing_metadata = lambda: trailers
    error = error_from_rpc(failed, target="host:1")
    assert (error.request_id, error.message) == ("order-12", "internal error")
    assert str(error) == "internal error (request order-12)"
    refused = error_from_status(8, "queue full", reason="QUEUE_FULL", request_id="order-12")
    assert (refused.request_id, str(refused)) == ("order-12", "queue full")
    assert mapped(grpc.StatusCode.INTERNAL).request_id == ""


def test_an_address_where_nothing_listens_is_named_with_the_cause():
    message = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
        "Failed to connect to remote host: connect: Connection refused (111)"
    )
    error = mapped(grpc.StatusCode.UNAVAILABLE, message)
    assert str(error) == "no server answers at host:1 (connection refused)"


def test_a_server_that_says_itself_why_it_is_unavailable_is_quoted():
    info = error_details_pb2.ErrorInfo(reason="DRAINING")
    error = mapped(grpc.StatusCode.UNAVAILABLE, "the server is stopping", info)
    assert str(error) == "the server is stopping"
    assert error.reason == "DRAINING"


def test_an_expired_call_names_target_and_timeout():
    error = mapped(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert str(error) == "no answer from host:1 within 2 s"
    assert isinstance(error, TimeoutError)


def test_a_status_without_text_still_says_something():
    assert str(mapped(grpc.StatusCode.INTERNAL, "")) == "the server said INTERNAL"
