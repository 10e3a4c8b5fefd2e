"""Requests and answers, with a real tiny retriever. B queries, D embedding width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motherlode.core.errors import InvalidInputError, InvalidQueryError, RequestTooLargeError
from motherlode.core.queries import DenseQueries, EmbeddingQueries, SparseQueries, TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.server.config import ServerConfig
from motherlode.server.wire import read_request
from motherlode.v1 import retrieval_pb2 as pb
from tests.support.bundles import WIDTH, publish_tiny

F32, F16 = pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_FLOAT16


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    repository = tmp_path_factory.mktemp("repository")
    publish_tiny(repository)
    return Retriever.load(Repository(repository), "tiny")


def config(**settings: Any) -> ServerConfig:
    return ServerConfig(repository=Path("unused"), **settings)


def texts(*values: str) -> dict[str, Any]:
    return {"text": pb.TextBatch(texts=values)}


def tensor(shape: tuple[int, ...], *, dtype: int = F32, data: bytes | None = None) -> pb.Tensor:
    if data is None:
        data = np.ones(shape, "<f4" if dtype == F32 else "<f2").tobytes()
    return pb.Tensor(dtype=dtype, shape=shape, data=data)


def sparse(indptr: Any, indices: Any, values: Any) -> dict[str, Any]:
    batch = pb.SparseBatch(
        indptr=np.array(indptr, "<i8").tobytes(),
        indices=np.array(indices, "<i8").tobytes(),
        values=np.array(values, "<f4").tobytes(),
    )
    return {"sparse": batch}


def read(retriever: Retriever, *, k: int = 3, settings: Any = None, **fields: Any) -> Any:
    request = pb.TopKRequest(k=k, **fields)
    asked = read_request(request, retriever, config(**(settings or {})))
    assert asked.k == k
    return asked.queries, asked.filter


def test_texts_are_read_in_their_order(retriever: Retriever) -> None:
    queries, label_filter = read(retriever, **texts("one", "two", ""))
    assert isinstance(queries, TextQueries)
    assert queries.texts == ["one", "two", ""]
    assert label_filter is None


def test_sparse_features_are_read_as_they_are(retriever: Retriever) -> None:
    queries, _ = read(retriever, **sparse([0, 2, 2, 3], [1, 4, 0], [0.5, 0.25, 1.0]))
    assert isinstance(queries, SparseQueries)
    assert queries.indptr.tolist() == [0, 2, 2, 3]
    assert queries.indices.tolist() == [1, 4, 0]
    assert queries.values.tolist() == [0.5, 0.25, 1.0]
    assert queries.num_features == retriever.num_features


@pytest.mark.parametrize(("dtype", "code"), [(F32, "<f4"), (F16, "<f2")])
def test_embeddings_of_both_types_become_float32_row_by_row(
    retriever: Retriever, dtype: int, code: str
) -> None:
    embeddings_BD = np.arange(2 * WIDTH).reshape(2, WIDTH).astype(code)
    message = tensor((2, WIDTH), dtype=dtype, data=embeddings_BD.tobytes())
    queries, _ = read(retriever, embeddings=message)
    assert isinstance(queries, EmbeddingQueries)
    assert queries.embeddings_BD.dtype == np.float32
    assert queries.embeddings_BD.flags.writeable
    assert np.array_equal(queries.embeddings_BD, embeddings_BD.astype(np.float32))


def test_dense_features_reach_a_model_that_takes_them(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retriever, "query_kinds", ("features", "embeddings"))
    monkeypatch.setattr(retriever, "num_features", 4)
    queries, _ = read(retriever, features=tensor((2, 4)))
    assert isinstance(queries, DenseQueries)
    assert queries.features_BF.tolist() == [[1.0] * 4] * 2


def test_a_filter_names_labels_by_key_in_any_order(retriever: Retriever) -> None:
    for mode in ("allow", "deny"):
        message = pb.LabelFilter(**{mode: ["label9", "label2", "label9"]})
        _, label_filter = read(retriever, **texts("x"), filter=message)
        assert label_filter is not None
        assert (label_filter.mode, label_filter.rows.tolist()) == (mode, [2, 9])


def test_a_filter_without_keys_is_none(retriever: Retriever) -> None:
    _, label_filter = read(retriever, **texts("x"), filter=pb.LabelFilter())
    assert label_filter is None


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({"k": 0} | texts("x"), "k", "1 to 50"),
        ({"k": 51} | texts("x"), "k", "1 to 50"),
        ({}, "queries", "one of text, sparse, embeddings"),
        (texts(), "queries", "at least 1 query"),
        ({"features": tensor((1, 4))}, "queries", "one of text, sparse, embeddings"),
        ({"embeddings": tensor((0, WIDTH))}, "queries", "at least 1 query"),
        ({"embeddings": tensor((1, 5))}, "queries.embeddings.shape", f"[queries, {WIDTH}]"),
        ({"embeddings": tensor((WIDTH,))}, "queries.embeddings.shape", "[queries, width]"),
        ({"embeddings": tensor((-1, WIDTH), data=b"")}, "queries.embeddings.shape", "[queries,"),
        (
            {"embeddings": tensor((2, WIDTH), data=bytes(WIDTH * 4))},
            "queries.embeddings.data",
            f"{WIDTH * 8} bytes",
        ),
        (
            {"embeddings": tensor((1, WIDTH), data=np.full(WIDTH, np.nan, "<f4").tobytes())},
            "queries.embeddings[0, 0]",
            "a finite number",
        ),
        (
            {"embeddings": tensor((1, WIDTH), dtype=F16, data=b"\0\x7c" * WIDTH)},
            "queries.embeddings[0, 0]",
            "a finite number",
        ),
        (
            {"embeddings": pb.Tensor(shape=[1, WIDTH], data=bytes(WIDTH * 4))},
            "queries.embeddings.dtype",
            "DATA_TYPE_FLOAT32 or",
        ),
        ({"sparse": pb.SparseBatch()}, "queries", "at least 1 query"),
        ({"sparse": pb.SparseBatch(indptr=b"123")}, "queries.sparse.indptr", "a multiple of 8"),
        (sparse([0, 2], [1], [0.5]), "queries.sparse.indptr", "1 last"),
        (sparse([1, 1], [1], [0.5]), "queries.sparse.indptr", "0 first"),
        (sparse([0, 1], [1], [0.5, 0.5]), "queries.sparse.values.shape", "[1]"),
        (sparse([0, 1], [-1], [0.5]), "queries.sparse.indices[0]", "0 to "),
        (sparse([0, 1], [10**9], [0.5]), "queries.sparse.indices[0]", "0 to "),
        (sparse([0, 2], [3, 3], [0.5, 0.5]), "queries.sparse.indices[1]", "more than 3"),
        (sparse([0, 1], [1], [np.inf]), "queries.sparse.values[0]", "a finite number"),
        (texts("fine", "é" * 40_000), "queries.text.texts[1]", "at most 65536 bytes"),
        (
            texts("x") | {"filter": pb.LabelFilter(allow=["label1"], deny=["label2"])},
            "filter",
            "allow or deny, not both",
        ),
        (
            texts("x") | {"filter": pb.LabelFilter(deny=["label1", "nobody"])},
            "filter.deny[1]",
            "the key of a label",
        ),
        (texts("x") | {"label_fields": [1, 9]}, "label_fields[1]", "LABEL_FIELD_KEY or"),
        (texts("x") | {"label_fields": [0]}, "label_fields[0]", "LABEL_FIELD_KEY or"),
        (texts("x") | {"label_fields": [1, 1]}, "label_fields[1]", "each field at most once"),
        (texts("x") | {"label_fields": [1] * 10_000}, "label_fields", "each field at most once"),
    ],
)
def test_each_wrong_value_is_refused_by_name(
    retriever: Retriever, fields: dict[str, Any], field: str, expected: str
) -> None:
    with pytest.raises(InvalidQueryError) as error:
        read(retriever, **fields)
    assert error.value.field == field
    assert error.value.expected.startswith(expected)


def test_a_filter_has_at_most_as_many_keys_as_there_are_labels(retriever: Retriever) -> None:
    read(retriever, **texts("x"), filter=pb.LabelFilter(deny=["label1"] * 50))
    with pytest.raises(RequestTooLargeError, match=r"filter\.deny: expected at most 50 keys"):
        read(retriever, **texts("x"), filter=pb.LabelFilter(deny=["label1"] * 51))


def test_k_is_limited_by_the_server_too(retriever: Retriever) -> None:
    with pytest.raises(InvalidQueryError, match="k: expected 1 to 7, got 8"):
        read(retriever, k=8, settings={"max_k": 7}, **texts("x"))


def test_a_text_is_measured_in_bytes(retriever: Retriever) -> None:
    read(retriever, settings={"max_text_bytes": 8}, **texts("éééé"))
    with pytest.raises(InvalidInputError, match="at most 7 bytes of UTF-8, got 8"):
        read(retriever, settings={"max_text_bytes": 7}, **texts("éééé"))


@pytest.mark.parametrize(
    "fields",
    [texts("a", "b", "c"), {"embeddings": tensor((3, WIDTH))}, sparse([0, 0, 0, 0], [], [])],
    ids=["text", "embeddings", "sparse"],
)
def test_more_queries_than_a_call_may_have_are_too_large(
    retriever: Retriever, fields: dict[str, Any]
) -> None:
    with pytest.raises(RequestTooLargeError, match="at most 2 queries a call, got 3"):
        read(retriever, settings={"max_queries_per_call": 2}, **fields)


def test_a_claimed_shape_is_not_believed(retriever: Retriever) -> None:
    with pytest.raises(RequestTooLargeError):
        read(retriever, embeddings=tensor((2**62, 0), data=b""))


@pytest.mark.parametrize("label_fields", [[], [pb.LABEL_FIELD_TEXT]])
def test_an_answer_above_the_message_limit_is_refused_before_it_is_made(
    retriever: Retriever, label_fields: list[int]
) -> None:
    many = texts(*["x"] * 100)
    settings = {"max_message_bytes": 22_000}
    read(retriever, k=10, settings=settings, label_fields=label_fields, **many)
    with pytest.raises(RequestTooLargeError, match="an answer of at most 22000 bytes"):
        read(retriever, k=50, settings=settings, label_fields=label_fields, **many)
