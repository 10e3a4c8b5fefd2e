"""Every error that a caller can handle.

MotherlodeError
├── InvalidInputError        a value from outside is wrong: names field, expected, actual
│   ├── InvalidQueryError    ... in a query batch
│   ├── RequestTooLargeError ... asks for more than one call may; split it, a retry cannot help
│   ├── ConfigError          ... in a configuration file, flag or variable
│   └── DataError            ... in a data file: names the file, the line and the field
├── BundleError              a bundle cannot be read, verified or written: says why
│   └── UnsupportedFormatError    written by a newer Motherlode
├── OutputError              a result cannot be written, or its place is taken
├── NotFoundError            no such model, version, alias or label
├── UnsupportedError         a valid request that this index or build cannot answer; says what can
├── OverloadedError          the queue is full; retry after a while
├── UnavailableError         starting, draining or stopping
└── GateError                a quality or latency target was not met
"""

from __future__ import annotations

from pathlib import Path


class MotherlodeError(Exception):
    """Root of all errors raised on purpose."""


class InvalidInputError(MotherlodeError):
    """A value from outside is wrong.

    Attributes:
        field: Path of the value, such as `queries.embeddings.shape`.
        expected: What would have been right.
        actual: What came, shortened.
    """

    def __init__(self, field: str, *, expected: str, actual: object) -> None:
        self.field = field
        self.expected = expected
        self.actual = shorten(actual)
        super().__init__(self._message())

    def rename(self, field: str) -> None:
        """Calls the value what those call it who sent it."""
        self.field = field
        self.args = (self._message(),)

    def _message(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.actual}"


class InvalidQueryError(InvalidInputError):
    """A query batch is wrong; no query of it was answered."""


class RequestTooLargeError(InvalidInputError):
    """A request asks for more than one call may; smaller ones would be answered."""


class ConfigError(InvalidInputError):
    """A configuration value is wrong."""


class DataError(InvalidInputError):
    """A data file is wrong at one place.

    Attributes:
        path: The file.
        line: Line number from 1 (row number from 1 in a Parquet file), or None for the whole file.
    """

    def __init__(
        self, path: Path, line: int | None, field: str, *, expected: str, actual: object
    ) -> None:
        self.path = path
        self.line = line
        place = f"{path}:{line}: {field}" if line is not None else f"{path}: {field}"
        super().__init__(place, expected=expected, actual=actual)


class BundleError(MotherlodeError):
    """A bundle cannot be read, verified or written."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class UnsupportedFormatError(BundleError):
    """The bundle was written by a newer Motherlode."""


class OutputError(MotherlodeError):
    """A result cannot be written, or what lies at its place is not to be replaced."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class NotFoundError(MotherlodeError):
    """No such model, version, alias or label."""

    def __init__(self, kind: str, name: str, *, known: list[str] | None = None) -> None:
        self.kind = kind
        self.name = name
        hint = f"; there is {', '.join(known)}" if known else ""
        super().__init__(f"no {kind} {shorten(name)}{hint}")


class UnsupportedError(MotherlodeError):
    """A valid request that this index or build cannot answer."""


class OverloadedError(MotherlodeError):
    """The queue is full, or so slow that to wait in it would be in vain.

    Attributes:
        retry_after_s: Seconds after which a retry may succeed.
        reason: One word for programs: QUEUE_FULL, QUEUE_BYTES, QUEUE_DELAY, QUEUE_DEADLINE or
            UNFETCHED_ANSWERS.
    """

    def __init__(self, message: str, *, retry_after_s: float, reason: str = "QUEUE_FULL") -> None:
        self.retry_after_s = retry_after_s
        self.reason = reason
        super().__init__(message)


class UnavailableError(MotherlodeError):
    """The server is starting, draining or stopping, or has no version of a model to serve.

    Attributes:
        reason: One word for programs, such as DRAINING.
    """

    def __init__(self, message: str, *, reason: str = "UNAVAILABLE") -> None:
        self.reason = reason
        super().__init__(message)


class GateError(MotherlodeError):
    """A quality or latency target was not met."""


def shorten(value: object, *, limit: int = 120) -> str:
    """A value as one line of at most `limit` characters, for messages."""
    text = repr(value[: limit + 1]) if isinstance(value, str | bytes) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
