from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from motherlode.cli.logs import formatter_of


def record_of(message: str, *args: object, **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("motherlode.x", logging.WARNING, "x.py", 1, message, args, None)
    record.created, record.msecs = 1.5, 500.0
    vars(record).update(fields)
    return record


def test_a_line_of_json_has_the_message_and_the_fields() -> None:
    line = formatter_of("json").format(record_of("slow %s", "call", k=3, duration_s=0.5))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "warning",
        "logger": "motherlode.x",
        "message": "slow call",
        "k": 3,
        "duration_s": 0.5,
    }


def test_a_line_of_text_has_the_fields_behind_the_message() -> None:
    line = formatter_of("text").format(record_of("slow %s", "call", k=3, duration_s=0.5))
    assert line == "1970-01-01T00:00:01.500Z WARNING motherlode.x: slow call k=3 duration_s=0.5"


def test_a_line_of_text_without_fields_ends_with_its_message() -> None:
    assert formatter_of("text").format(record_of("done")).endswith("motherlode.x: done")


def test_a_traceback_stays_within_its_line_of_json() -> None:
    record = record_of("failed")
    try:
        raise ZeroDivisionError("a\nb")
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    line = formatter_of("json").format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].startswith("Traceback")
    assert formatter_of("text").format(record).count("\n") > 2


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, ValueError("x")])
def test_a_field_that_json_does_not_know_is_written_as_text(value: object) -> None:
    line = formatter_of("json").format(record_of("m", field=value))
    assert json.loads(line)["field"] == str(value)


def test_a_field_cannot_take_the_place_of_the_message() -> None:
    line = formatter_of("json").format(record_of("m", time="now", level="none"))
    assert json.loads(line)["level"] == "warning"
