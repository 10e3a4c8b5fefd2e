from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse

from motherlode.clients import InvalidArgumentError, query_batch
from motherlode.v1 import retrieval_pb2 as pb


def filled(batch) -> pb.TopKRequest:
    request = pb.TopKRequest()
    batch.fill(request)
    return request


def test_texts_travel_as_they_are():
    texts = ["Lisbonne", "Мюнхен", "", "東京"]
    assert list(filled(query_batch(texts)).text.texts) == texts


def test_a_matrix_of_doubles_travels_as_little_endian_float32():
    matrix = np.arange(6, dtype=np.float64).reshape(2, 3) / 7
    tensor = filled(query_batch(embeddings=matrix)).embeddings
    assert tensor.dtype == pb.DATA_TYPE_FLOAT32
    assert list(tensor.shape) == [2, 3]
    assert tensor.data == matrix.astype("<f4").tobytes()


def test_a_matrix_of_halves_stays_half():
    matrix = np.ones((2, 3), np.float16)
    tensor = filled(query_batch(features=matrix)).features
    assert tensor.dtype == pb.DATA_TYPE_FLOAT16
    assert len(tensor.data) == 12


def test_a_transposed_matrix_travels_row_by_row():
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2).T
    data = filled(query_batch(embeddings=matrix)).embeddings.data
    assert np.frombuffer(data, "<f4").tolist() == [0, 2, 4, 1, 3, 5]


def test_a_scipy_matrix_with_unsorted_indices_travels_sorted_and_is_left_alone():
    matrix = scipy.sparse.csr_matrix(
        (np.array([2.0, 1.0, 3.0]), np.array([5, 1, 0]), np.array([0, 2, 3])), shape=(2, 6)
    )
    sparse = filled(query_batch(sparse=matrix)).sparse
    assert np.frombuffer(sparse.indptr, "<i8").tolist() == [0, 2, 3]
    assert np.frombuffer(sparse.indices, "<i8").tolist() == [1, 5, 0]
    assert np.frombuffer(sparse.values, "<f4").tolist() == [1.0, 2.0, 3.0]
    assert matrix.indices.tolist() == [5, 1, 0]


def test_sparse_arrays_and_the_scipy_matrix_of_them_make_the_same_request():
    matrix = scipy.sparse.random(5, 20, 0.3, "csr", np.float32, rng=np.random.default_rng(0))
    matrix.sort_indices()
    arrays = (matrix.indptr, matrix.indices, matrix.data)
    assert filled(query_batch(sparse=arrays)) == filled(query_batch(sparse=matrix))
    assert filled(query_batch(sparse=matrix.tocoo())) == filled(query_batch(sparse=matrix))


@pytest.mark.parametrize(
    "batch",
    [
        query_batch([f"ü{i}" * i for i in range(9)]),
        query_batch(embeddings=np.arange(27).reshape(9, 3)),
        query_batch(sparse=scipy.sparse.eye(9, 12, format="csr")),
    ],
    ids=["text", "embeddings", "sparse"],
)
def test_the_parts_of_a_batch_are_the_batch(batch):
    whole = pb.TopKRequest()
    batch.fill(whole)
    assert len(batch.rows(2, 5)) == 3
    for start, stop in [(0, 9), (2, 5), (8, 9)]:
        part = filled(batch.rows(start, stop))
        singles = [filled(batch.rows(i, i + 1)) for i in range(start, stop)]
        assert rows_of(part) == [row for single in singles for row in rows_of(single)]
    assert rows_of(filled(batch.rows(0, 9))) == rows_of(whole)


@pytest.mark.parametrize(
    "batch",
    [
        query_batch([f"ü{i}" * i for i in range(9)]),
        query_batch(embeddings=np.arange(27).reshape(9, 3)),
        query_batch(sparse=scipy.sparse.random(9, 99, 0.3, "csr", rng=np.random.default_rng(1))),
    ],
    ids=["text", "embeddings", "sparse"],
)
def test_the_stated_sizes_cover_the_message(batch):
    fixed_bytes = 64
    assert filled(batch).ByteSize() <= batch.sizes_B.sum() + fixed_bytes


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "queries"),
        ({"queries": ["a"], "embeddings": np.ones((1, 2))}, "queries"),
        ({"queries": []}, "queries"),
        ({"queries": "one text"}, "queries"),
        ({"queries": ["a", 7]}, "queries.text.texts[1]"),
        ({"queries": ["a", "b\ud800"]}, "queries.text.texts[1]"),
        ({"embeddings": np.ones(3)}, "queries.embeddings.shape"),
        ({"embeddings": np.ones((0, 3))}, "queries"),
        ({"features": np.array([["a"]])}, "queries.features.dtype"),
        ({"features": np.ones((1, 1), np.complex64)}, "queries.features.dtype"),
        ({"sparse": 5}, "queries.sparse"),
        ({"sparse": ([0, 1], [0], [1.0, 2.0])}, "queries.sparse"),
        ({"sparse": ([0, 2], [0], [1.0])}, "queries.sparse.indptr"),
        ({"sparse": ([1, 1], [0], [1.0])}, "queries.sparse.indptr"),
        ({"sparse": ([0, 2, 1, 3], [0, 1, 2], [1.0, 1.0, 1.0])}, "queries.sparse.indptr"),
        ({"sparse": ([], [], [])}, "queries.sparse.indptr"),
    ],
)
def test_a_malformed_batch_is_refused_before_anything_is_sent(given, field):
    with pytest.raises(InvalidArgumentError, match="expected") as caught:
        query_batch(**given)
    assert [violation.field for violation in caught.value.violations] == [field]


def rows_of(request: pb.TopKRequest) -> list:
    match request.WhichOneof("queries"):
        case "text":
            return list(request.text.texts)
        case "embeddings":
            tensor = request.embeddings
            return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape)).tolist()
    indptr = np.frombuffer(request.sparse.indptr, "<i8")
    indices = np.frombuffer(request.sparse.indices, "<i8")
    values = np.frombuffer(request.sparse.values, "<f4")
    bounds = itertools.pairwise(indptr)
    return [(indices[a:b].tolist(), values[a:b].tolist()) for a, b in bounds]
