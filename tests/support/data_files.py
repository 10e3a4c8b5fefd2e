"""Small data files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_bytes(path: Path, content: bytes) -> Path:
    """The file with this content, compressed if its name ends in `.gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_lines(path: Path, *lines: str) -> Path:
    """The file with these lines."""
    return write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    """A JSONL or Parquet file of the records, by the name's end."""
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(records)), path)
        return path
    return write_lines(path, *(json.dumps(record, ensure_ascii=False) for record in records))
