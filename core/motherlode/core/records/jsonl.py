"""JSON Lines: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from motherlode.core.errors import DataError
from motherlode.core.records.batch import RecordBatch
from motherlode.core.records.collector import RecordCollector
from motherlode.core.records.files import read_lines
from motherlode.core.records.messages import Words


def read_jsonl(
    path: Path, *, batch_size: int, num_features: int | None, kinds: Collection[str] | None
) -> Iterator[RecordBatch]:
    """Batches of a JSONL file; see `read_records`."""
    records = RecordCollector(path, num_features, kinds)
    for line, record in read_objects(path):
        records.add(line, record)
        if len(records) == batch_size:
            yield records.take()
    records.require_records()
    if len(records):
        yield records.take()


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and the JSON objects of a file; blank lines are skipped.

    Raises:
        DataError: If a line is no JSON object, holds NaN or Infinity, or text that has no UTF-8.
    """
    decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
    for line, text in read_lines(path):
        if not text or text.isspace():
            continue
        try:
            value = decode(text)
            if "\\ud" in text or "\\uD" in text:
                _require_utf8(value)
        except json.JSONDecodeError as error:
            place = f"{error.msg} at column {error.colno}"
            raise DataError(
                path, line, "JSON", expected="a valid object", actual=Words(place)
            ) from None
        # A huge integer, NaN, half of a surrogate pair, brackets nested too deeply.
        except (ValueError, RecursionError) as error:
            raise DataError(
                path, line, "JSON", expected="text and finite numbers", actual=Words(str(error))
            ) from None
        if type(value) is not dict:
            raise DataError(path, line, "JSON", expected="an object", actual=text)
        yield line, value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _require_utf8(value: object) -> None:
    json.dumps(value, ensure_ascii=False).encode()
