"""How a line of the log is written: for people, or as JSON for programs."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal

from typing_extensions import override

__all__ = ["LogFormat", "formatter_of"]

LogFormat = Literal["text", "json"]

# What every record has; what else is there was given by `extra` or by a filter.
_COMMON = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def formatter_of(log_format: LogFormat) -> logging.Formatter:
    """The formatter of a format; both write UTC times with milliseconds."""
    formatter = JsonFormatter() if log_format == "json" else TextFormatter()
    formatter.converter = time.gmtime
    return formatter


class TextFormatter(logging.Formatter):
    """Time, level, logger and message, then the fields as `name=value`."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={value}" for name, value in _fields(record).items()]
        return " ".join([super().formatMessage(record), *fields])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, the fields, and `exception`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        seconds = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        document: dict[str, object] = {
            **_fields(record),
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _COMMON}
