"""Labelled queries in memory: read from files, selected, split.

Shapes: B queries, L labels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, final

import numpy as np

from motherlode.core.errors import DataError
from motherlode.core.labels import LabelTable
from motherlode.core.queries import DenseQueries, IntArray, SparseQueries, TextQueries
from motherlode.core.records import (
    SUFFIXES,
    RecordBatch,
    RecordQueries,
    read_label_table,
    read_records,
)
from motherlode.core.records.messages import Words
from motherlode.trainer.data.content import digest_of, join_queries
from motherlode.trainer.data.label_rows import LabelRows
from motherlode.trainer.data.rows import PositiveRows, take_queries

Part = Literal["train", "test"]

# Small enough that the garbage collector has few lists to look at, again and again.
_BATCH_SIZE = 2048


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """Queries with their true labels.

    Attributes:
        queries: B queries of one kind.
        positives: B rows of label rows; repeats in a record are dropped.
        num_true: int64 [B], true labels of each query, those that `labels` lacks included.
        labels: The label table.
    """

    queries: RecordQueries
    positives: PositiveRows
    num_true: IntArray
    labels: LabelTable

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over queries, label keys, label texts and positives, in hexadecimal.

        It does not depend on the format, compression or batches in which the data was read.
        """
        return digest_of(self.queries, self.positives, self.num_true, self.labels)

    def rows(self, chosen: IntArray) -> Dataset:
        """The chosen queries, in the given order, with the same label table.

        Args:
            chosen: int64 [C], numbers of queries.
        """
        return Dataset(
            take_queries(self.queries, chosen),
            self.positives.rows(chosen),
            self.num_true[chosen],
            self.labels,
        )


def load_dataset(
    folder: Path,
    part: Part,
    *,
    labels: LabelTable | None = None,
    num_features: int | None = None,
) -> Dataset:
    """The training or test data of a folder, with label frequencies counted on the training data.

    The folder has `train`, for tests also `test`, and optionally `labels`, in any format that is
    read. Without `labels`, the labels are those seen in `train`, sorted: as numbers if all are,
    else as text.

    Args:
        folder: Where the files are.
        part: Which file to read.
        labels: A table to use instead. Test data keeps its frequencies, training data replaces
            them; test data without this argument has the frequencies of `labels`, which are zero,
            or, without that file, those of `train`.
        num_features: As in `read_records`.

    Raises:
        DataError: If a file is missing, there twice or broken, a record has no labels, or a
            label of the training data is not in the table.
    """
    path = find_file(folder, part)
    if labels is None and has_file(folder, "labels"):
        labels = read_label_table(find_file(folder, "labels"))
    if part == "train":
        return _load_train(path, labels, num_features)
    if labels is None:
        labels = _load_train(find_file(folder, "train"), None, num_features).labels
    return load_test_file(path, labels=labels, num_features=num_features)


def load_test_file(
    path: Path,
    *,
    labels: LabelTable,
    num_features: int | None = None,
    kinds: Collection[str] | None = None,
) -> Dataset:
    """The data of one file; labels that the table lacks count in `num_true` alone.

    Args:
        path: The file.
        labels: The table.
        num_features: As in `read_records`.
        kinds: As in `read_records`.

    Raises:
        DataError: If the file is missing or broken, has no labels, or is of another kind.
    """
    rows = LabelRows(labels)
    queries = _read(path, rows, num_features, kinds, may_be_new=True)
    positives, num_true = rows.positives()
    return Dataset(queries, positives, num_true, labels)


def _load_train(path: Path, labels: LabelTable | None, num_features: int | None) -> Dataset:
    rows = LabelRows(labels)
    queries = _read(path, rows, num_features, None, may_be_new=labels is None)
    if labels is None:
        labels = rows.settle_new()
    positives, num_true = rows.positives()
    frequencies = positives.counts(len(labels))
    return Dataset(queries, positives, num_true, LabelTable(labels.keys, labels.texts, frequencies))


def _read(
    path: Path,
    rows: LabelRows,
    num_features: int | None,
    kinds: Collection[str] | None,
    *,
    may_be_new: bool,
) -> RecordQueries:
    parts = []
    for batch in read_records(path, batch_size=_BATCH_SIZE, num_features=num_features, kinds=kinds):
        if batch.labels is None:
            raise DataError(
                path, batch.lines[0], "labels", expected="a list of labels", actual=Words("nothing")
            )
        rows.add(batch.labels)
        if rows.num_new and not may_be_new:
            raise _unknown_label(path, batch, rows)
        parts.append(batch.queries)
    return join_queries(parts)


def _unknown_label(path: Path, batch: RecordBatch, rows: LabelRows) -> DataError:
    assert batch.labels is not None
    line, key = next(
        (line, key)
        for line, keys in zip(batch.lines, batch.labels, strict=True)
        for key in keys
        if rows.is_new(key)
    )
    return DataError(path, line, "labels", expected="labels of the label file", actual=key)


def kind_of_data(folder: Path) -> str | None:
    """`text`, `sparse` or `dense`, by the first training query of a folder.

    None if it cannot be read; `load_dataset` then says why.
    """
    try:
        first = next(read_records(find_file(folder, "train"), batch_size=1))
    except DataError:
        return None
    return kind_of_features(first.queries)


def kind_of_features(queries: RecordQueries) -> str:
    """The `features.kind` that takes these queries: `text`, `sparse` or `dense`."""
    return {TextQueries: "text", SparseQueries: "sparse", DenseQueries: "dense"}[type(queries)]


def find_file(folder: Path, part: str) -> Path:
    """The file of a folder that holds `train`, `test` or `labels`.

    Raises:
        DataError: If there is none, or more than one.
    """
    found = _candidates(folder, part)
    if len(found) == 1:
        return found[0]
    expected = f"one of {', '.join(part + suffix for suffix in SUFFIXES)}"
    names = " and ".join(path.name for path in found) or "none of them"
    actual = names if folder.is_dir() else "no such folder"
    raise DataError(folder, None, part, expected=expected, actual=Words(actual))


def has_file(folder: Path, part: str) -> bool:
    """Whether a folder has a file of `train`, `test` or `labels`, or several."""
    return bool(_candidates(folder, part))


def _candidates(folder: Path, part: str) -> list[Path]:
    paths = [folder / f"{part}{suffix}" for suffix in SUFFIXES]
    return [path for path in paths if path.exists()]


def split_held_out(
    dataset: Dataset, count: int, generator: np.random.Generator
) -> tuple[Dataset, Dataset]:
    """A training part and a held-out part, drawn without replacement, each in the old order.

    Both have the old label rows; the frequencies of both are those of the training part.

    Args:
        dataset: Training data.
        count: Queries to hold out.
        generator: Decides which.

    Raises:
        ValueError: If one of the parts would be empty.
    """
    size = len(dataset)
    if not 0 < count < size:
        raise ValueError(f"cannot hold out {count} of {size} queries")
    is_held = np.zeros(size, np.bool_)
    is_held[generator.choice(size, count, replace=False)] = True
    train, held = dataset.rows(np.flatnonzero(~is_held)), dataset.rows(np.flatnonzero(is_held))
    old = dataset.labels
    labels = LabelTable(old.keys, old.texts, train.positives.counts(len(old)))
    return replace(train, labels=labels), replace(held, labels=labels)
