"""What every reader yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from motherlode.core.queries import DenseQueries, SparseQueries, TextQueries

RecordQueries = TextQueries | SparseQueries | DenseQueries


@final
@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """Consecutive records of one file.

    Attributes:
        queries: B queries; all batches of a file are of one kind.
        ids: B texts: the record's own `id`, or the record's number in the file, from 0.
        labels: B lists of label keys in the file's order, repeats included; None if the file has
            no labels.
        lines: B line numbers from 1 (row numbers from 1 in a Parquet file), for messages.
    """

    queries: RecordQueries
    ids: list[str]
    labels: list[list[str]] | None
    lines: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.ids)
