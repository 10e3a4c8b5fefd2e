"""The text format of the Extreme Classification Repository.

The first line is `N F L`: records, features, labels. Every other line is a record,
`label,label feature:value feature:value`, with ids from 0; a record without labels begins with
a space.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import final

from motherlode.core.errors import DataError, InvalidInputError
from motherlode.core.records.batch import RecordBatch
from motherlode.core.records.columns import SparseColumn, check_kind
from motherlode.core.records.files import read_lines
from motherlode.core.records.messages import at_line, empty_file

# Python's own number grammar also admits nan, inf, underscores and digits of other scripts.
_OF_NUMBERS = b"0123456789eE+-."
_NOT_NUMERIC = re.compile(r"[^0-9eE+\-.:]")
_COUNT = re.compile(r"[0-9]{1,18}")
_LABELS = re.compile(r"[0-9]{1,18}(?:,[0-9]{1,18})*")


def read_xc(
    path: Path, *, batch_size: int, num_features: int | None, kinds: Collection[str] | None
) -> Iterator[RecordBatch]:
    """Batches of an XC file; see `read_records`."""
    lines = read_lines(path)
    rows = _read_header(path, lines, num_features, kinds)
    for line, text in lines:
        rows.add(line, text)
        if len(rows) == batch_size:
            yield rows.take()
    rows.require_all()
    if len(rows):
        yield rows.take()


@final
class _Rows:
    """Rows of one file, collected into batches."""

    def __init__(self, path: Path, num_records: int, num_features: int, num_labels: int) -> None:
        self._path = path
        self._num_expected = num_records
        self._num_labels = num_labels
        self._features = SparseColumn(num_features)
        self._num_records = 0
        self._labels: list[list[str]] = []

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, line: int, text: str) -> None:
        if self._num_records == self._num_expected:
            self._refuse_surplus(line, text)
            return
        try:
            labels, _, features = text.partition(" ")
            keys = _parse_labels(labels, self._num_labels)
            self._features.add_row(*_parse_features(features))
        except InvalidInputError as error:
            raise at_line(self._path, line, error) from None
        self._labels.append(keys)
        self._num_records += 1

    def _refuse_surplus(self, line: int, text: str) -> None:
        if text and not text.isspace():
            expected = f"the end of the file, as line 1 says {self._num_expected} records"
            raise DataError(self._path, line, "records", expected=expected, actual=text)

    def take(self) -> RecordBatch:
        stop = self._num_records
        start = stop - len(self._labels)
        labels, self._labels = self._labels, []
        ids = [str(row) for row in range(start, stop)]
        # Records begin in line 2.
        return RecordBatch(self._features.take(), ids, labels, range(start + 2, stop + 2))

    def require_all(self) -> None:
        if self._num_records < self._num_expected:
            expected = f"{self._num_expected}, as line 1 says"
            raise DataError(
                self._path, None, "records", expected=expected, actual=self._num_records
            )


def _read_header(
    path: Path,
    lines: Iterator[tuple[int, str]],
    num_features: int | None,
    kinds: Collection[str] | None,
) -> _Rows:
    _, text = next(lines, (1, ""))
    counts = text.split()
    if not counts:
        raise empty_file(path)
    if len(counts) != 3 or not all(map(_COUNT.fullmatch, counts)):
        expected = "three numbers: records, features, labels"
        raise DataError(path, 1, "header", expected=expected, actual=text)
    try:
        check_kind(SparseColumn.kind, kinds)
    except InvalidInputError as error:
        raise at_line(path, 1, error) from None
    num_records, found_features, num_labels = map(int, counts)
    if num_records == 0:
        raise empty_file(path)
    if num_features is not None and found_features != num_features:
        raise DataError(
            path, 1, "header", expected=f"{num_features} features", actual=found_features
        )
    return _Rows(path, num_records, found_features, num_labels)


def _parse_labels(text: str, num_labels: int) -> list[str]:
    if not text:
        return []
    if _LABELS.fullmatch(text):
        ids = list(map(int, text.split(",")))
        if max(ids) < num_labels:
            return list(map(str, ids))
    raise _broken_label(text, num_labels)


def _broken_label(text: str, num_labels: int) -> InvalidInputError:
    keys = text.split(",")
    i = next(
        i for i, key in enumerate(keys) if not (_COUNT.fullmatch(key) and int(key) < num_labels)
    )
    expected = f"a label id from 0 to {num_labels - 1}"
    return InvalidInputError(f"labels[{i}]", expected=expected, actual=keys[i])


def _parse_features(text: str) -> tuple[list[int], list[float]]:
    # Without the characters of numbers, n pairs leave n colons with single spaces between. Then
    # one split finds all numbers, several times faster than a look at each pair.
    colons = text.encode().translate(None, _OF_NUMBERS)
    numbers = text.replace(":", " ").split()
    if (
        not colons
        or len(numbers) != len(colons) + 1
        or colons != (b": " * (len(numbers) // 2))[:-1]
    ):
        numbers = _split_pairs(text)
    try:
        return list(map(int, numbers[::2])), list(map(float, numbers[1::2]))
    except ValueError:
        raise _broken_pair(text) from None


def _split_pairs(text: str) -> list[str]:
    """The numbers of pairs that are parted by any number of spaces."""
    tokens = text.split()
    if not all(map(_is_pair, tokens)):
        raise _broken_pair(text)
    return [number for token in tokens for number in token.split(":")]


def _broken_pair(text: str) -> InvalidInputError:
    tokens = text.split()
    i = next(i for i, token in enumerate(tokens) if not _is_pair(token))
    return InvalidInputError(f"features[{i}]", expected="feature:value", actual=tokens[i])


def _is_pair(token: str) -> bool:
    index, _, value = token.partition(":")
    try:
        int(index), float(value)
    except ValueError:
        return False
    return not _NOT_NUMERIC.search(token)
