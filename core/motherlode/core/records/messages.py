"""How errors in data files say what was found, and where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from typing_extensions import override

from motherlode.core.errors import DataError, InvalidInputError

Record = Mapping[str, Any]


@final
class Words:
    """Words of a message: errors quote strings, which are the file's own, but not these."""

    def __init__(self, text: str) -> None:
        self._text = text

    @override
    def __str__(self) -> str:
        return self._text


def describe(record: Record, key: str) -> Words:
    """What a record has under a key, with its type; long values are cut."""
    if key not in record:
        return Words("nothing")
    value = record[key]
    return Words("null" if value is None else f"{value!r:.60} ({type(value).__name__})")


def at_line(path: Path, line: int, error: InvalidInputError) -> DataError:
    """The error with its place in a file."""
    return DataError(path, line, error.field, expected=error.expected, actual=Words(error.actual))


def empty_file(path: Path) -> DataError:
    """The error for a file without records."""
    return DataError(path, None, "records", expected="at least one", actual=Words("none"))
