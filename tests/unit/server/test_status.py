from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from motherlode.core import errors
from motherlode.server import status
from motherlode.server.call import ExpiredError, InternalError
from motherlode.server.failure import LoadFailure, LoadRefusedError, RepositoryUnusableError

Code = grpc.StatusCode


def refused(stage: str) -> LoadRefusedError:
    return LoadRefusedError(LoadFailure("m", 2, stage, "bundle", "torn", (), 0.0))


CASES = [
    (
        errors.InvalidQueryError("k", expected="1 to 5", actual=0),
        Code.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
    ),
    (
        errors.RequestTooLargeError("queries", expected="at most 3", actual=4),
        Code.RESOURCE_EXHAUSTED,
        "REQUEST_TOO_LARGE",
    ),
    (errors.NotFoundError("model", "m"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    (errors.NotFoundError("version", "m@3"), Code.NOT_FOUND, "VERSION_NOT_FOUND"),
    (errors.NotFoundError("alias", "m@a"), Code.NOT_FOUND, "ALIAS_NOT_FOUND"),
    (errors.UnsupportedError("no filters"), Code.FAILED_PRECONDITION, "UNSUPPORTED"),
    (
        errors.OverloadedError("full", retry_after_s=0.5),
        Code.RESOURCE_EXHAUSTED,
        "QUEUE_FULL",
    ),
    (
        errors.OverloadedError("slow", retry_after_s=0.5, reason="QUEUE_DELAY"),
        Code.RESOURCE_EXHAUSTED,
        "QUEUE_DELAY",
    ),
    (errors.UnavailableError("bye", reason="DRAINING"), Code.UNAVAILABLE, "DRAINING"),
    (ExpiredError("search"), Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    (errors.UnavailableError("swap", reason="RELOADING"), Code.UNAVAILABLE, "RELOADING"),
    (
        RepositoryUnusableError("aliases.json: broken"),
        Code.FAILED_PRECONDITION,
        "REPOSITORY_UNUSABLE",
    ),
    (refused("gate"), Code.FAILED_PRECONDITION, "GATE_REFUSED"),
    (refused("verify"), Code.FAILED_PRECONDITION, "LOAD_REFUSED"),
    (ExpiredError("late"), Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    (status.UnimplementedError("no admin"), Code.UNIMPLEMENTED, "UNIMPLEMENTED"),
    (
        status.UnauthenticatedError("who?", reason="KEY_UNKNOWN"),
        Code.UNAUTHENTICATED,
        "KEY_UNKNOWN",
    ),
    (status.PermissionDeniedError("no"), Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
    (status.StreamIdleError("idle"), Code.UNAVAILABLE, "STREAM_IDLE"),
]
UNFORESEEN = [
    ZeroDivisionError("secret"),
    InternalError("secret"),
    errors.BundleError(Path("secret"), "secret"),
]


def details(error: Exception, kind: Any) -> list[Any]:
    found = []
    for detail in status.status_of(error).details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


@pytest.mark.parametrize(("error", "code", "reason"), CASES, ids=[row[2] for row in CASES])
def test_each_error_has_its_code_and_its_reason(
    error: Exception, code: grpc.StatusCode, reason: str
) -> None:
    whole = status.status_of(error)
    assert (whole.code, whole.message) == (code.value[0], str(error))
    [info] = details(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, "motherlode")


@pytest.mark.parametrize("error", UNFORESEEN)
def test_an_unforeseen_error_is_internal_and_tells_nothing(error: Exception) -> None:
    whole = status.status_of(error)
    assert whole.code == Code.INTERNAL.value[0]
    assert "secret" not in str(whole)


@pytest.mark.parametrize("error", [CASES[0][0], CASES[1][0]])
def test_a_wrong_value_names_its_field_what_was_expected_and_what_came(
    error: errors.InvalidInputError,
) -> None:
    [request] = details(error, error_details_pb2.BadRequest)
    [violation] = request.field_violations
    assert violation.field == error.field
    assert violation.description == f"expected {error.expected}, got {error.actual}"
    [info] = details(error, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {
        "field": error.field,
        "expected": error.expected,
        "actual": error.actual,
    }


def test_a_deadline_that_passed_names_the_stage_that_was_not_reached() -> None:
    [info] = details(ExpiredError("search"), error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"stage": "search"}


def test_a_full_queue_says_when_to_retry() -> None:
    [retry] = details(
        errors.OverloadedError("full", retry_after_s=1.25), error_details_pb2.RetryInfo
    )
    assert retry.retry_delay.ToMilliseconds() == 1250


@pytest.mark.parametrize(
    ("reason", "is_coming"),
    [("STARTING", True), ("MODEL_NOT_LOADED", True), ("RELOADING", True), ("DRAINING", False)],
)
def test_only_a_server_that_will_be_ready_asks_for_a_retry(reason: str, is_coming: bool) -> None:
    error = errors.UnavailableError("not now", reason=reason)
    assert bool(details(error, error_details_pb2.RetryInfo)) is is_coming
    assert bool(status.retry_after_s_of(error)) is is_coming


def test_a_request_that_is_too_large_asks_for_no_retry() -> None:
    assert details(CASES[1][0], error_details_pb2.RetryInfo) == []


def test_every_error_a_caller_can_cause_is_in_the_table() -> None:
    raised = {type(error) for error, _, _ in CASES}
    assert {kind for kind, _, _ in status.TABLE} <= raised | {errors.InvalidInputError}


def test_a_refused_version_names_stage_and_reason_for_programs() -> None:
    [info] = details(refused("verify"), error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"stage": "verify", "reason": "bundle"}


def test_a_message_fits_into_trailers() -> None:
    names = [f"model{i}" for i in range(10_000)]
    assert len(status.message_of(errors.NotFoundError("model", "m", known=names))) <= 1000
