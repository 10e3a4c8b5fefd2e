"""Label files: the keys of the labels, and texts where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from motherlode.core.errors import InvalidInputError
from motherlode.core.labels import LabelTable
from motherlode.core.records.collector import key_of
from motherlode.core.records.files import read_lines
from motherlode.core.records.jsonl import read_objects
from motherlode.core.records.messages import Record, Words, at_line, describe, empty_file
from motherlode.core.records.parquet import read_label_rows
from motherlode.core.records.reader import format_of


def read_label_table(path: Path) -> LabelTable:
    """The labels of a file, in its order, with frequencies of zero.

    JSONL objects and Parquet rows have `id`, a string or an integer, and all or none a `text`.
    A `.txt` or `.txt.gz` file has one name a line; the key is the line's number, from 0.

    Raises:
        DataError: If the file is missing, empty or broken, or two labels have the same key.
    """
    match format_of(path):
        case "jsonl":
            return _of_records(path, read_objects(path))
        case "parquet":
            return _of_records(path, read_label_rows(path))
        case "xc":
            return _of_names(path)


def _of_names(path: Path) -> LabelTable:
    names = [text for _, text in read_lines(path)]
    if not names:
        raise empty_file(path)
    return LabelTable(list(map(str, range(len(names)))), names, np.zeros(len(names), np.int64))


def _of_records(path: Path, records: Iterator[tuple[int, Record]]) -> LabelTable:
    lines: dict[str, int] = {}
    texts: list[str] = []
    for line, record in records:
        try:
            _add(line, record, lines, texts)
        except InvalidInputError as error:
            raise at_line(path, line, error) from None
    if not lines:
        raise empty_file(path)
    return LabelTable(list(lines), texts or None, np.zeros(len(lines), np.int64))


def _add(line: int, record: Record, lines: dict[str, int], texts: list[str]) -> None:
    """Adds a label to the lines by key and, if there are any, to the texts."""
    key = key_of(record, "id")
    if key in lines:
        raise InvalidInputError(
            "id", expected="each label once", actual=Words(f"{key!r:.80}, as in line {lines[key]}")
        )
    has_texts = bool(texts) or (not lines and "text" in record)
    text = record.get("text")
    if has_texts and type(text) is str:
        texts.append(text)
    elif has_texts:
        raise InvalidInputError("text", expected="a string", actual=describe(record, "text"))
    elif "text" in record:
        raise InvalidInputError(
            "text", expected="none, as in the first line", actual=describe(record, "text")
        )
    lines[key] = line
