from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from motherlode.core.queries import (
    DenseQueries,
    EmbeddingQueries,
    Queries,
    SparseQueries,
    TextQueries,
    concatenate,
)


def sparse(*rows: dict[int, float], num_features: int = 9) -> SparseQueries:
    return SparseQueries(
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([i for row in rows for i in row], np.int64),
        np.array([v for row in rows for v in row.values()], np.float32),
        num_features,
    )


SPARSE_ROWS = [{1: 0.5, 4: 2.0}, {}, {0: 1.0}, {8: 3.0}]
MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)
BATCHES: list[Queries] = [
    TextQueries(["a", "b", "", "d"]),
    sparse(*SPARSE_ROWS),
    DenseQueries(MATRIX),
    EmbeddingQueries(MATRIX),
]


def content(queries: Queries) -> list[object]:
    """One comparable value for each query."""
    match queries:
        case TextQueries(texts):
            return list(texts)
        case SparseQueries(indptr, indices, values):
            assert indptr[0] == 0
            return [
                dict(zip(indices[a:b].tolist(), values[a:b].tolist(), strict=True))
                for a, b in pairwise(indptr)
            ]
        case DenseQueries(matrix) | EmbeddingQueries(matrix):
            return matrix.tolist()


@pytest.fixture(params=BATCHES, ids=lambda batch: type(batch).__name__)
def batch(request: pytest.FixtureRequest) -> Queries:
    queries: Queries = request.param
    return queries


def test_a_batch_is_as_long_as_it_has_queries(batch):
    assert len(batch) == 4


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, 2), (3, 4)])
def test_a_range_of_queries_is_a_batch_of_its_own(batch, start, stop):
    part = batch.rows(start, stop)
    assert type(part) is type(batch)
    assert (len(part), content(part)) == (stop - start, content(batch)[start:stop])


def test_parts_put_together_again_are_the_whole(batch):
    parts = [batch.rows(0, 1), batch.rows(1, 1), batch.rows(1, 4)]
    whole = concatenate(parts)
    assert type(whole) is type(batch)
    assert content(whole) == content(batch)


def test_a_single_batch_is_returned_as_it_is(batch):
    assert concatenate([batch]) is batch


def test_sparse_queries_keep_their_number_of_features():
    whole = concatenate([sparse(*SPARSE_ROWS), sparse({2: 1.0})])
    assert isinstance(whole, SparseQueries)
    assert whole.num_features == 9
    assert (whole.indptr.dtype, whole.indices.dtype, whole.values.dtype) == (
        np.int64,
        np.int64,
        np.float32,
    )


@pytest.mark.parametrize("batches", [[], [TextQueries(["a"]), DenseQueries(MATRIX)]])
def test_no_batches_and_batches_of_different_kinds_are_refused(batches):
    with pytest.raises(TypeError, match="one or more batches of one kind"):
        concatenate(batches)
