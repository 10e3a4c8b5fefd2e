"""The one way to read records: the file's name says in which format they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from motherlode.core.errors import DataError
from motherlode.core.records.batch import RecordBatch
from motherlode.core.records.files import require_file
from motherlode.core.records.jsonl import read_jsonl
from motherlode.core.records.parquet import read_parquet
from motherlode.core.records.xc import read_xc

Format = Literal["jsonl", "parquet", "xc"]

_FORMATS: dict[str, Format] = {
    ".jsonl.gz": "jsonl",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".txt.gz": "xc",
    ".txt": "xc",
}
_READERS = {"jsonl": read_jsonl, "parquet": read_parquet, "xc": read_xc}

SUFFIXES = tuple(_FORMATS)
"""Ends of the names of files that can be read."""


def read_records(
    path: Path,
    *,
    batch_size: int,
    num_features: int | None = None,
    kinds: Collection[str] | None = None,
) -> Iterator[RecordBatch]:
    """Batches of the records of a file, in order; memory does not grow with the file.

    A JSONL object or Parquet row has one input: `text` (a string), `indices` and `values` (sparse
    features) or `features` (a list of numbers); it may have `labels` (strings or integers) and an
    `id` (likewise). Other keys are ignored. `.txt` and `.txt.gz` are read in the format of the
    Extreme Classification Repository.

    Args:
        path: The file; its name ends in one of `SUFFIXES`.
        batch_size: Records of a batch, at least 1; the last batch may have fewer.
        num_features: Width of dense and bound of sparse features. If None, dense files take the
            first record's, XC files their header's, and each batch of other sparse files has one
            more than its largest feature id.
        kinds: Inputs to accept, of `text`, `sparse` and `features`; None accepts all.

    Raises:
        DataError: At once if there is no such file or its format is unknown; while reading, at
            the first thing that is wrong in it, at the latest after its last batch.
        ValueError: If batch_size is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    reader = _READERS[format_of(path)]
    require_file(path)
    return reader(path, batch_size=batch_size, num_features=num_features, kinds=kinds)


def format_of(path: Path) -> Format:
    """The format that a file's name stands for.

    Raises:
        DataError: If it stands for none.
    """
    for suffix, name in _FORMATS.items():
        if path.name.endswith(suffix):
            return name
    raise DataError(
        path,
        None,
        "file name",
        expected=f"one that ends in {', '.join(SUFFIXES)}",
        actual=path.name,
    )
