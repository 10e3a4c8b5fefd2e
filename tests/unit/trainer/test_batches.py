from __future__ import annotations

import numpy as np
import pytest

from motherlode.core.queries import DenseQueries
from motherlode.trainer.batches import BatchSource
from motherlode.trainer.data import PositiveRows


def source(batch_size: int = 4, seed: int = 0) -> BatchSource:
    """Ten queries; query i has the label i, but query 3 has none and query 5 also label 0."""
    labels = [[i] for i in range(10)]
    labels[3], labels[5] = [], [0, 5]
    indptr = np.cumsum([0, *map(len, labels)]).astype(np.int64)
    indices = np.array([label for row in labels for label in row], np.int64)
    features = DenseQueries(np.arange(10, dtype=np.float32)[:, None])
    return BatchSource(features, PositiveRows(indptr, indices), batch_size, seed)


def queries_of(source: BatchSource, step: int) -> list[int]:
    features = source.batch(step).features
    assert isinstance(features, DenseQueries)
    return [int(row) for row in features.features_BF[:, 0]]


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_an_epoch_holds_every_labelled_query_once(batch_size: int) -> None:
    batches = source(batch_size)
    for epoch in range(3):
        first = epoch * batches.steps_per_epoch
        seen = [q for s in range(batches.steps_per_epoch) for q in queries_of(batches, first + s)]
        assert sorted(seen) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_any_step_can_be_asked_for_first() -> None:
    in_order = source()
    expected = [queries_of(in_order, step) for step in range(9)]
    assert [queries_of(source(), step) for step in range(9)] == expected


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    batches = source(9)
    assert queries_of(batches, 0) != queries_of(batches, 1)
    assert queries_of(batches, 0) != queries_of(source(9, seed=1), 0)


def test_positives_stand_with_their_queries() -> None:
    batch = source(9).batch(0)
    queries = queries_of(source(9), 0)
    pairs = {
        (queries[row], label)
        for row, label in zip(batch.rows_P.tolist(), batch.positives_P.tolist(), strict=True)
    }
    assert pairs == {(i, i) for i in range(10) if i != 3} | {(5, 0)}
    assert batch.rows_P.tolist() == sorted(batch.rows_P.tolist())
