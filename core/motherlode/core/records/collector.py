"""Records in, batches out: the rules that JSONL and Parquet share."""

from __future__ import annotations

from collections.abc import Collection, Set
from pathlib import Path
from typing import Any, final

from motherlode.core.errors import InvalidInputError
from motherlode.core.records.batch import RecordBatch
from motherlode.core.records.columns import InputColumn, check_kind, column_of, foreign_keys
from motherlode.core.records.messages import Record, Words, at_line, describe, empty_file

_STRING = frozenset({str})


@final
class RecordCollector:
    """Collects the records of one file.

    The first record decides what all have: the kind of input, whether there are labels, whether
    there are ids.

    Args:
        path: The file, for messages.
        num_features: As in `read_records`.
        kinds: As in `read_records`.
    """

    def __init__(
        self, path: Path, num_features: int | None, kinds: Collection[str] | None = None
    ) -> None:
        self._path = path
        self._num_features = num_features
        self._kinds = kinds
        self._inputs: InputColumn | None = None
        self._usual_keys: Set[str] = frozenset()
        self._has_labels = self._has_ids = False
        self._num_taken = 0
        self._start_batch()

    def _start_batch(self) -> None:
        self._labels: list[list[str]] = []
        self._ids: list[str] = []
        self._lines: list[int] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: int, record: Record) -> None:
        """Appends a record.

        Args:
            line: Its line or row number, from 1.
            record: Its keys and values; keys that no reader knows are ignored.

        Raises:
            DataError: If it is wrong by itself or has other keys than the first record.
        """
        try:
            inputs = self._inputs or self._settle(record)
            # One comparison of keys spares most records the look-up of each key that none has.
            if record.keys() != self._usual_keys:
                self._check_keys(record, inputs)
            inputs.add(record)
            if self._has_labels:
                self._labels.append(keys_of(record, "labels"))
            if self._has_ids:
                self._ids.append(key_of(record, "id"))
        except InvalidInputError as error:
            raise at_line(self._path, line, error) from None
        self._lines.append(line)

    def _settle(self, record: Record) -> InputColumn:
        inputs = self._inputs = column_of(record, self._num_features)
        check_kind(inputs.kind, self._kinds)
        self._usual_keys = frozenset(record)
        self._has_labels = "labels" in record
        self._has_ids = "id" in record
        return inputs

    def _check_keys(self, record: Record, inputs: InputColumn) -> None:
        """Refuses keys that the first record lacks; who reads a key reports a missing one."""
        foreign = sorted(foreign_keys(inputs).intersection(record))
        if foreign:
            expected = f"only {' and '.join(inputs.keys)}, as in the first record"
            raise InvalidInputError("input", expected=expected, actual=Words(" and ".join(foreign)))
        for field in ("labels", "id"):
            if field in record and field not in self._usual_keys:
                raise InvalidInputError(
                    field, expected="none, as in the first record", actual=describe(record, field)
                )

    def take(self) -> RecordBatch:
        """The records added since the last call, at least one."""
        assert self._inputs is not None
        start, stop = self._num_taken, self._num_taken + len(self)
        ids = self._ids if self._has_ids else list(map(str, range(start, stop)))
        labels = self._labels if self._has_labels else None
        batch = RecordBatch(self._inputs.take(), ids, labels, self._lines)
        self._num_taken = stop
        self._start_batch()
        return batch

    def require_records(self) -> None:
        """Checks, at the end of the file, that there were any records.

        Raises:
            DataError: If there were none.
        """
        if not (self._num_taken or self._lines):
            raise empty_file(self._path)


def key_of(record: Record, field: str) -> str:
    """The text of a record's `id` or other key.

    Raises:
        InvalidInputError: If it is missing, or neither a string nor an integer.
    """
    value = record.get(field)
    if type(value) is not str and type(value) is not int:
        raise InvalidInputError(
            field, expected="a string or an integer", actual=describe(record, field)
        )
    return str(value)


def keys_of(record: Record, field: str) -> list[str]:
    """The texts of a record's `labels`.

    Raises:
        InvalidInputError: If it is missing, or no list of strings and integers.
    """
    values: Any = record.get(field)
    if type(values) is not list:
        raise InvalidInputError(
            field, expected="a list of strings or integers", actual=describe(record, field)
        )
    if _STRING.issuperset(map(type, values)):
        return values
    for i, value in enumerate(values):
        if type(value) not in (str, int):
            raise InvalidInputError(
                f"{field}[{i}]",
                expected="a string or an integer",
                actual=describe({field: value}, field),
            )
    return [str(value) for value in values]
