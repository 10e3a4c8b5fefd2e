"""Parts: Parquet files of scored rows, written in row groups of bounded size.

Row groups are cut by the settings alone, never by the batches that come in, so a part has the
same bytes however its rows were batched and whichever run wrote it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from motherlode.core.labels import LabelTable
from motherlode.core.topk import TopK, concatenate
from motherlode.scoring.records import RunRecord

ROWS_PER_GROUP = 16_384
# Bounds the memory of a row group when k is large.
HITS_PER_GROUP = 250_000
_COUNTS_KEY = b"motherlode.counts"
_RUN_KEY = b"motherlode.run"


@final
class PartFormat:
    """How the rows of one run look: columns, label names and constants.

    Attributes:
        schema: Arrow schema of every part.
        run: Settings of the run.
        rows_per_group: Rows of each row group but a part's last.
    """

    def __init__(self, run: RunRecord, labels: LabelTable) -> None:
        self.run = run
        self.rows_per_group = max(1, min(ROWS_PER_GROUP, HITS_PER_GROUP // run.k))
        self._names = {"label_keys": labels.keys.arrow}
        if labels.texts is not None:
            self._names["label_texts"] = labels.texts.arrow
        self.schema = _schema(run, list(self._names))

    def table(self, ids: list[str], top: TopK) -> pa.Table:
        """Rows as a table: ids [B] and their hits, best first."""
        offsets = pa.array(top.offsets.astype(np.int32))
        labels = pa.array(top.labels)
        columns = [pa.array(ids, pa.string()), pa.ListArray.from_arrays(offsets, labels)]
        for names in self._names.values():
            taken = names.take(labels).cast(pa.string())
            columns.append(pa.ListArray.from_arrays(offsets, taken))
        columns += [
            pa.ListArray.from_arrays(offsets, pa.array(top.scores)),
            _constant(self.run.model, len(ids)),
            pa.array(np.full(len(ids), self.run.version, np.int64)),
            _constant(self.run.bundle_digest, len(ids)),
        ]
        return pa.table(columns, schema=self.schema)


@final
class PartWriter:
    """Writes one part to an open file; at most one row group and one batch are held."""

    def __init__(self, file: IO[bytes], form: PartFormat) -> None:
        self._form = form
        self._writer = pq.ParquetWriter(file, form.schema, compression="zstd")
        self._ids: list[str] = []
        self._tops: list[TopK] = []
        self._counts = {"num_hits": 0, "num_without_hits": 0, "num_fewer_than_k": 0}

    def write(self, ids: list[str], top: TopK) -> None:
        """Adds rows: ids [B] and their hits."""
        self._ids += ids
        self._tops.append(top)
        self._counts["num_hits"] += len(top.labels)
        self._counts["num_without_hits"] += int((top.counts == 0).sum())
        self._counts["num_fewer_than_k"] += int((top.counts < self._form.run.k).sum())
        if len(self._ids) >= self._form.rows_per_group:
            self._write_groups(keep_rest=True)

    def close(self) -> None:
        """Writes what is left and the footer, which holds the counts of the part."""
        if self._ids:
            self._write_groups(keep_rest=False)
        self._writer.add_key_value_metadata({_COUNTS_KEY: json.dumps(self._counts)})
        self._writer.close()

    def abandon(self) -> None:
        """Gives up a part that is not closed, so that its file may be dropped."""
        # Else the writer would add a footer when it is collected, to a file closed by then.
        self._writer.is_open = False

    def _write_groups(self, *, keep_rest: bool) -> None:
        size, num_rows = self._form.rows_per_group, len(self._ids)
        top = concatenate(self._tops)
        stop = num_rows - num_rows % size if keep_rest else num_rows
        for start in range(0, stop, size):
            end = min(start + size, stop)
            table = self._form.table(self._ids[start:end], top.rows(start, end))
            self._writer.write_table(table, row_group_size=size)
        self._ids, self._tops = self._ids[stop:], [top.rows(stop, num_rows)]


def read_counts(path: Path, run: RunRecord) -> dict[str, int] | None:
    """`num_rows` and the counts of a part, or None if it is not a whole part of this run."""
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return None
    values: dict[bytes, bytes] = footer.metadata or {}
    if values.get(_RUN_KEY) != run.digest.encode() or _COUNTS_KEY not in values:
        return None
    return {"num_rows": int(footer.num_rows), **json.loads(values[_COUNTS_KEY])}


def _schema(run: RunRecord, names: list[str]) -> pa.Schema:
    constant = pa.dictionary(pa.int32(), pa.string())
    types: dict[str, Any] = {"query_id": pa.string(), "labels": pa.list_(pa.int64())}
    types |= {name: pa.list_(pa.string()) for name in names}
    types |= {"scores": pa.list_(pa.float32())}
    types |= {"model": constant, "version": pa.int64(), "bundle_digest": constant}
    fields = [pa.field(name, kind, nullable=False) for name, kind in types.items()]
    return pa.schema(fields, metadata={_RUN_KEY: run.digest})


def _constant(value: str, num_rows: int) -> pa.DictionaryArray:
    indices = pa.array(np.zeros(num_rows, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], pa.string()))
