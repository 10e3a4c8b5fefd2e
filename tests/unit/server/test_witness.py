from __future__ import annotations

import logging
from typing import Any

import pytest

from motherlode.core.errors import InvalidQueryError
from motherlode.core.queries import TextQueries
from motherlode.core.query_path import StageTimes
from motherlode.core.topk import concatenate
from motherlode.server.engine import Answer, Call
from motherlode.server.metrics import Meters
from motherlode.server.slot import ServedVersion
from motherlode.server.witness import Allowance, Witness
from tests.support.fake_retriever import FakeRetriever

ANSWER = Answer(concatenate([]), 0.25, StageTimes(encode_s=0.5))


@pytest.fixture
def call() -> Call:
    served = ServedVersion(FakeRetriever().as_retriever, Meters().version("fake", 1))
    return Call(served, TextQueries(["a", "b"]), 3, None)  # type: ignore[arg-type]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_slow_call_is_one_line_with_its_stages(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    Witness(0.5).answered("TopK", call, ANSWER, 0.5)
    [record] = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "slow call")
    fields: dict[str, Any] = vars(record)
    assert fields["method"] == "TopK"
    assert (fields["model"], fields["version"], fields["code"]) == ("fake", 1, "OK")
    assert (fields["duration_s"], fields["queue_s"], fields["encode_s"]) == (0.5, 0.25, 0.5)
    assert (fields["num_queries"], fields["k"]) == (2, 3)


@pytest.mark.parametrize("witness", [Witness(0.5), Witness()])
def test_a_quick_call_leaves_no_line(
    witness: Witness, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    witness.answered("TopK", call, ANSWER, 0.4)
    assert caplog.records == []


def test_a_failed_call_tells_the_field_and_not_the_value(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    error = InvalidQueryError("queries.text[0]", expected="UTF-8", actual="a secret")
    Witness().failed("TopK", "INVALID_ARGUMENT", call.served, error, 0.1)
    [record] = caplog.records
    assert record.message == "failed call"
    assert vars(record)["field"] == "queries.text[0]"
    assert vars(record)["reason"] == "INVALID_ARGUMENT"
    assert not any("a secret" in str(value) for value in vars(record).values())


def test_a_flood_of_failures_is_cut_off_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    witness = Witness(allowance=Allowance(rate=10, burst=3, clock=clock))
    for _ in range(50):
        witness.failed("TopK", "NOT_FOUND", None, ValueError(), 0.1)
    assert len(caplog.records) == 3
    clock.now_s = 0.1
    for _ in range(5):
        witness.failed("TopK", "NOT_FOUND", None, ValueError(), 0.1)
    assert len(caplog.records) == 4
    assert vars(caplog.records[-1])["lines_left_out"] == 47


def test_lines_that_nobody_reads_take_no_allowance(caplog: pytest.LogCaptureFixture) -> None:
    witness = Witness(allowance=Allowance(rate=1, burst=1, clock=Clock()))
    caplog.set_level(logging.ERROR)
    witness.failed("TopK", "NOT_FOUND", None, ValueError(), 0.1)
    caplog.set_level(logging.INFO)
    witness.failed("TopK", "NOT_FOUND", None, ValueError(), 0.1)
    assert len(caplog.records) == 1
