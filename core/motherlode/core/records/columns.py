"""The inputs of records, checked one by one and collected into batches.

The checks raise `InvalidInputError`; the readers know the place and make a `DataError` of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, final

import numpy as np
from typing_extensions import override

from motherlode.core.errors import InvalidInputError
from motherlode.core.queries import DenseQueries, IntArray, SparseQueries, TextQueries
from motherlode.core.records.batch import RecordQueries
from motherlode.core.records.messages import Record, Words, describe

_MAX_FEATURES = 2**31
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class InputColumn(ABC):
    """Inputs of one kind, collected until they are taken as a batch."""

    kind: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]

    @abstractmethod
    def add(self, record: Record) -> None:
        """Appends the input of one record.

        Raises:
            InvalidInputError: If a key of this kind is missing or its value is wrong.
        """

    @abstractmethod
    def take(self) -> RecordQueries:
        """All inputs added since the last call."""


@final
class TextColumn(InputColumn):
    """Texts."""

    kind = "text"
    keys = ("text",)

    def __init__(self) -> None:
        self._texts: list[str] = []

    @override
    def add(self, record: Record) -> None:
        text = record.get("text")
        if type(text) is not str:
            raise InvalidInputError("text", expected="a string", actual=describe(record, "text"))
        self._texts.append(text)

    @override
    def take(self) -> TextQueries:
        texts, self._texts = self._texts, []
        return TextQueries(texts)


@final
class SparseColumn(InputColumn):
    """Feature ids with their values.

    Args:
        num_features: Ids must be below it; None admits any, and a batch then says one more than
            its own largest id.
    """

    kind = "sparse"
    keys = ("indices", "values")

    def __init__(self, num_features: int | None) -> None:
        self._num_features = num_features
        self._limit = _MAX_FEATURES if num_features is None else num_features
        self._lengths: list[int] = []
        self._indices: list[int] = []
        self._values: list[float] = []

    @override
    def add(self, record: Record) -> None:
        indices = _list_of(record, "indices", {int}, "a list of integers")
        values = _list_of(record, "values", {int, float}, "a list of numbers")
        self.add_row(indices, values)

    def add_row(self, indices: Sequence[int], values: Sequence[float]) -> None:
        """Appends one row, given as numbers of the right type.

        Raises:
            InvalidInputError: If the lengths differ, an index is out of range or repeated, or a
                value is not finite in float32.
        """
        if len(indices) != len(values):
            raise InvalidInputError(
                "values", expected=f"{len(indices)} values, one an index", actual=len(values)
            )
        self._check_indices(indices)
        _check_finite("values", values)
        self._lengths.append(len(indices))
        self._indices.extend(indices)
        self._values.extend(values)

    def _check_indices(self, indices: Sequence[int]) -> None:
        if not indices:
            return
        if min(indices) < 0 or max(indices) >= self._limit:
            i = next(i for i, index in enumerate(indices) if not 0 <= index < self._limit)
            expected = f"a feature id from 0 to {self._limit - 1}"
            raise InvalidInputError(f"indices[{i}]", expected=expected, actual=indices[i])
        if len(set(indices)) < len(indices):
            i = next(i for i, index in enumerate(indices) if index in indices[:i])
            raise InvalidInputError(
                f"indices[{i}]",
                expected="each feature id once",
                actual=Words(f"{indices[i]} again"),
            )

    @override
    def take(self) -> SparseQueries:
        lengths = np.array(self._lengths, np.int64)
        indices = np.array(self._indices, np.int64)
        values = np.array(self._values, np.float32)
        self._lengths, self._indices, self._values = [], [], []
        indptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        order = _ascending_order(lengths, indices)
        num_features = self._num_features
        if num_features is None:
            num_features = int(indices.max(initial=-1)) + 1
        return SparseQueries(indptr, indices[order], values[order], num_features)


def _ascending_order(lengths: IntArray, indices: IntArray) -> IntArray | slice:
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if np.all((np.diff(indices) > 0) | (np.diff(rows) > 0)):
        return slice(None)
    return np.lexsort((indices, rows))


@final
class DenseColumn(InputColumn):
    """Rows of floats.

    Args:
        num_features: Width of every row; None takes the first row's.
    """

    kind = "features"
    keys = ("features",)

    def __init__(self, num_features: int | None) -> None:
        self._num_features = num_features
        self._rows: list[list[float]] = []

    @override
    def add(self, record: Record) -> None:
        row = _list_of(record, "features", {int, float}, "a list of numbers")
        if self._num_features is None:
            self._num_features = max(len(row), 1)
        if len(row) != self._num_features:
            raise InvalidInputError(
                "features", expected=f"{self._num_features} numbers", actual=len(row)
            )
        _check_finite("features", row)
        self._rows.append(row)

    @override
    def take(self) -> DenseQueries:
        rows, self._rows = self._rows, []
        return DenseQueries(np.array(rows, np.float32).reshape(len(rows), -1))


def column_of(record: Record, num_features: int | None) -> InputColumn:
    """An empty column for the kind of input that this first record has.

    Raises:
        InvalidInputError: If the record has no input, or inputs of several kinds.
    """
    kinds = [kind for kind, keys in _KEYS.items() if not keys.isdisjoint(record)]
    if len(kinds) != 1:
        found = [key for kind in kinds for key in kind.keys if key in record]
        raise InvalidInputError(
            "input",
            expected="one of `text`, `indices` with `values`, and `features`",
            actual=Words(" and ".join(found) or f"the keys {sorted(record)}"),
        )
    if kinds[0] is TextColumn:
        return TextColumn()
    return SparseColumn(num_features) if kinds[0] is SparseColumn else DenseColumn(num_features)


def check_kind(kind: str, wanted: Collection[str] | None) -> None:
    """Refuses a kind of input that is not wanted; None wants all.

    Raises:
        InvalidInputError: If it is another one.
    """
    if wanted is not None and kind not in wanted:
        kinds = [column.kind for column in _KEYS if column.kind in wanted]
        expected = f"one of {', '.join(kinds)}" if len(kinds) > 1 else kinds[0]
        raise InvalidInputError("queries", expected=expected, actual=Words(kind))


def foreign_keys(column: InputColumn) -> frozenset[str]:
    """Keys of the other kinds of input, which no record beside this column's may have."""
    return frozenset().union(*_KEYS.values()) - _KEYS[type(column)]


def _list_of(record: Record, key: str, types: set[type], expected: str) -> list[Any]:
    values = record.get(key)
    if type(values) is not list:
        raise InvalidInputError(key, expected=expected, actual=describe(record, key))
    if not types.issuperset(map(type, values)):
        i = next(i for i, value in enumerate(values) if type(value) not in types)
        raise InvalidInputError(
            f"{key}[{i}]", expected=expected, actual=describe({key: values[i]}, key)
        )
    return values


def _check_finite(key: str, values: Sequence[float]) -> None:
    # Readers let no NaN through, so that comparisons suffice; integers may be of any size.
    if values and not (min(values) >= -_FLOAT32_MAX and max(values) <= _FLOAT32_MAX):
        i = next(i for i, value in enumerate(values) if not abs(value) <= _FLOAT32_MAX)
        raise InvalidInputError(
            f"{key}[{i}]", expected="a finite 32-bit float", actual=describe({key: values[i]}, key)
        )


_KEYS: dict[type[InputColumn], frozenset[str]] = {
    kind: frozenset(kind.keys) for kind in (TextColumn, SparseColumn, DenseColumn)
}
