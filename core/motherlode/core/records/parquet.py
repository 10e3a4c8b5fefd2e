"""Parquet files: one column a key of the record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from motherlode.core.errors import DataError
from motherlode.core.records.batch import RecordBatch
from motherlode.core.records.collector import RecordCollector
from motherlode.core.records.files import require_file
from motherlode.core.records.messages import Words

_BUFFER_BYTES = 1 << 20
_KEY = "strings or integers"
_RECORD_COLUMNS = {
    "text": "strings",
    "indices": "lists of integers",
    "values": "lists of numbers",
    "features": "lists of numbers",
    "labels": f"lists of {_KEY}",
    "id": _KEY,
}
_LABEL_COLUMNS = {"id": _KEY, "text": "strings"}


def read_parquet(
    path: Path, *, batch_size: int, num_features: int | None, kinds: Collection[str] | None
) -> Iterator[RecordBatch]:
    """Batches of a Parquet file; see `read_records`."""
    records = RecordCollector(path, num_features, kinds)
    for row, record in _read_rows(path, _RECORD_COLUMNS, batch_size):
        records.add(row, record)
        if len(records) == batch_size:
            yield records.take()
    records.require_records()
    if len(records):
        yield records.take()


def read_label_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row numbers from 1 and the `id` and `text` of a Parquet file of labels.

    Raises:
        DataError: If the file is broken, a column has another type, or a value is null.
    """
    return _read_rows(path, _LABEL_COLUMNS, 65_536)


def _read_rows(
    path: Path, known: dict[str, str], batch_size: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    require_file(path)
    try:
        # Threads, read-ahead and unbuffered reading would each hold whole row groups in memory.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            names = _check_schema(path, file.schema_arrow, known)
            row = 1
            for batch in file.iter_batches(batch_size, columns=names, use_threads=False):
                lists = [_to_list(path, row, batch.column(name), name) for name in names]
                for number, values in enumerate(zip(*lists, strict=True), row):
                    yield number, dict(zip(names, values, strict=True))
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            path, None, "file", expected="a whole Parquet file", actual=Words(str(error))
        ) from error


def _check_schema(path: Path, schema: Any, known: Collection[str]) -> list[str]:
    names = [name for name in known if name in schema.names]
    for name in names:
        if schema.names.count(name) > 1:
            raise DataError(
                path, None, name, expected="one column of this name", actual=Words("several")
            )
        expected = _RECORD_COLUMNS[name]
        if not _TYPES[expected](schema.field(name).type):
            actual = f"a column of {schema.field(name).type}"
            raise DataError(
                path, None, name, expected=f"a column of {expected}", actual=Words(actual)
            )
    return names


def _is_text(type_: Any) -> bool:
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def _is_key(type_: Any) -> bool:
    return _is_text(type_) or bool(pa.types.is_integer(type_))


def _is_number(type_: Any) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_))


def _is_list(type_: Any) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(type_) for test in tests)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "strings": _is_text,
    _KEY: _is_key,
    "lists of integers": lambda t: _is_list(t) and bool(pa.types.is_integer(t.value_type)),
    "lists of numbers": lambda t: _is_list(t) and _is_number(t.value_type),
    f"lists of {_KEY}": lambda t: _is_list(t) and _is_key(t.value_type),
}


def _to_list(path: Path, first_row: int, column: Any, name: str) -> list[Any]:
    """The column as Python values; the first row's number is for messages."""
    _require_values(path, first_row, column, name, np.arange(len(column)))
    if not _is_list(column.type):
        return _flat_to_list(path, first_row, column, name, np.arange(len(column)))
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(column)), lengths)
    flat = column.flatten()
    _require_values(path, first_row, flat, name, rows)
    values = _flat_to_list(path, first_row, flat, name, rows)
    bounds = np.concatenate(([0], np.cumsum(lengths))).tolist()
    return [values[start:stop] for start, stop in pairwise(bounds)]


def _flat_to_list(path: Path, first_row: int, flat: Any, name: str, rows: Any) -> list[Any]:
    """Values of a flat array; `rows` says which row of the batch each belongs to."""
    if _is_text(flat.type):
        return _strings(path, first_row, flat, name, rows)
    numbers = flat.to_numpy(zero_copy_only=False)
    if not np.all(np.isfinite(numbers)):
        i = int(np.argmin(np.isfinite(numbers)))
        raise DataError(
            path, first_row + int(rows[i]), name, expected="finite numbers", actual=numbers[i]
        )
    values: list[Any] = numbers.tolist()
    return values


def _strings(path: Path, first_row: int, flat: Any, name: str, rows: Any) -> list[str]:
    try:
        values: list[str] = flat.to_pylist()
    except UnicodeDecodeError as error:
        i = next(i for i in range(len(flat)) if not _is_decodable(flat[i]))
        row = first_row + int(rows[i])
        raise DataError(path, row, name, expected="UTF-8", actual=error.object) from None
    return values


def _is_decodable(scalar: Any) -> bool:
    try:
        scalar.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _require_values(path: Path, first_row: int, array: Any, name: str, rows: Any) -> None:
    if array.null_count:
        i = pc.index(array.is_null(), True).as_py()
        raise DataError(
            path, first_row + int(rows[i]), name, expected="a value", actual=Words("null")
        )
