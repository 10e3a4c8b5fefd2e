"""The requests of ModelInfer, with a real tiny retriever. B queries, D embedding width."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motherlode.core.errors import InvalidInputError, InvalidQueryError, RequestTooLargeError
from motherlode.core.queries import EmbeddingQueries, SparseQueries, TextQueries
from motherlode.core.repository import Repository
from motherlode.core.retriever import Retriever
from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.config import ServerConfig
from motherlode.server.open_inference.inputs import input_specs
from motherlode.server.open_inference.wire import in_terms_of_tensors, read_request
from motherlode.server.reception import Asked
from tests.support.bundles import WIDTH, publish_tiny
from tests.support.tensors import Tensor, infer_request, texts, wanted

ONE = texts("topic7")
Parameter = pb.InferParameter


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    repository = tmp_path_factory.mktemp("repository")
    publish_tiny(repository)
    return Retriever.load(Repository(repository), "tiny")


def config(**limits: Any) -> ServerConfig:
    return ServerConfig(repository=Path("unused"), **limits)


def read(retriever: Retriever, *tensors: Tensor, **fields: Any) -> Asked:
    return read_request(infer_request(*tensors, **fields), retriever, config())


def embeddings(*shape: int) -> Tensor:
    return Tensor("embeddings", np.ones(shape, np.float32))


def number(value: Any, dtype: str = "int32") -> Tensor:
    return Tensor("k", np.array(value, dtype))


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
def test_texts_are_read_in_their_order(retriever: Retriever, is_raw: bool) -> None:
    asked = read(retriever, texts("one", "", "東京"), is_raw=is_raw, k=3)
    assert isinstance(asked.queries, TextQueries)
    assert asked.queries.texts == ["one", "", "東京"]
    assert (asked.k, asked.filter) == (3, None)


def test_texts_may_stand_in_a_column(retriever: Retriever) -> None:
    column = Tensor("text", np.array([[b"one"], [b"two"]], np.object_))
    queries = read(retriever, column).queries
    assert isinstance(queries, TextQueries)
    assert queries.texts == ["one", "two"]


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
def test_embeddings_become_an_array_of_their_own(retriever: Retriever, is_raw: bool) -> None:
    matrix_BD = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    queries = read(retriever, Tensor("embeddings", matrix_BD), is_raw=is_raw).queries
    assert isinstance(queries, EmbeddingQueries)
    assert queries.embeddings_BD.dtype == np.float32
    assert queries.embeddings_BD.flags.writeable
    np.testing.assert_array_equal(queries.embeddings_BD, matrix_BD)


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
def test_sparse_features_are_three_tensors(retriever: Retriever, is_raw: bool) -> None:
    tensors = [
        Tensor("values", np.array([0.5, 0.25], np.float32)),
        Tensor("indptr", np.array([0, 2, 2])),
        Tensor("indices", np.array([1, 4])),
    ]
    queries = read(retriever, *tensors, is_raw=is_raw).queries
    assert isinstance(queries, SparseQueries)
    assert (queries.indptr.tolist(), queries.indices.tolist()) == ([0, 2, 2], [1, 4])
    assert queries.values.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    "k", [number([3]), number([3], "int64"), number([[3]])], ids=["int32", "int64", "column"]
)
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
def test_k_may_be_an_input(retriever: Retriever, k: Tensor, is_raw: bool) -> None:
    assert read(retriever, ONE, k, is_raw=is_raw).k == 3


def test_k_may_be_an_unsigned_parameter_and_is_ten_without_any(retriever: Retriever) -> None:
    assert read(retriever, ONE, parameters={"k": Parameter(uint64_param=4)}).k == 4
    assert read(retriever, ONE).k == 10


def test_without_k_no_more_is_asked_than_the_limit_lets_through(retriever: Retriever) -> None:
    assert read_request(infer_request(ONE), retriever, config(max_k=7)).k == 7


def test_what_perf_analyzer_sets_in_every_request_is_taken(retriever: Retriever) -> None:
    harmless = {"triton_enable_empty_final_response": Parameter(bool_param=True)}
    assert read(retriever, ONE, parameters=harmless).k == 10


def test_the_inputs_of_a_dense_model_have_its_widths(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retriever, "query_kinds", ("features", "embeddings"))
    monkeypatch.setattr(retriever, "num_features", 4)
    specs = {spec.name: (spec.datatype, spec.shape) for spec in input_specs(retriever)}
    assert specs == {
        "features": ("FP32", (-1, 4)),
        "embeddings": ("FP32", (-1, WIDTH)),
        "k": ("INT32", (1,)),
    }


def changed(request: pb.ModelInferRequest, **fields: Any) -> pb.ModelInferRequest:
    """The request with other fields in its first input."""
    first = request.inputs[0]
    for name, value in fields.items():
        first.ClearField(name)
        first.MergeFrom(type(first)(**{name: value}))
    return request


def with_raw(request: pb.ModelInferRequest, *raw: bytes) -> pb.ModelInferRequest:
    """The request with other raw contents."""
    del request.raw_input_contents[:]
    request.raw_input_contents.extend(raw)
    return request


def both_raw_and_typed() -> pb.ModelInferRequest:
    contents = pb.InferTensorContents(bytes_contents=[b"topic7"])
    return changed(infer_request(ONE), contents=contents)


WRONG: dict[str, tuple[pb.ModelInferRequest, str, str]] = {
    "no input": (infer_request(), "inputs", "text or indptr with indices with values or embed"),
    "k alone": (infer_request(number([3])), "inputs", "text or"),
    "two kinds": (infer_request(ONE, embeddings(1, WIDTH)), "inputs", "text or"),
    "half of sparse": (infer_request(Tensor("indptr", np.array([0, 0]))), "inputs", "text or"),
    "unknown input": (infer_request(texts("a", name="query")), "inputs", "names of embeddings"),
    "repeated input": (infer_request(ONE, ONE), "inputs[1].name", "each input once"),
    "text datatype": (
        changed(infer_request(ONE), datatype="FP32"),
        "inputs.text.datatype",
        "BYTES",
    ),
    "embedding datatype": (
        changed(infer_request(embeddings(1, WIDTH)), datatype="FP64"),
        "inputs.embeddings.datatype",
        "FP32",
    ),
    "text shape": (
        infer_request(Tensor("text", np.full((1, 2), b"a", np.object_))),
        "inputs.text.shape",
        "[queries] or [queries, 1]",
    ),
    "no axis": (changed(infer_request(ONE), shape=[]), "inputs.text.shape", "[queries] or"),
    "negative": (changed(infer_request(ONE), shape=[-1]), "inputs", "at least 1 query"),
    "no query": (infer_request(texts()), "inputs", "at least 1 query"),
    "negative width": (
        changed(infer_request(embeddings(1, WIDTH)), shape=[1, -1]),
        "inputs.embeddings.shape",
        "lengths of 0 or more",
    ),
    "width": (infer_request(embeddings(1, 3)), "inputs.embeddings.shape", f"[queries, {WIDTH}]"),
    "one axis": (infer_request(embeddings(WIDTH)), "inputs.embeddings.shape", "[queries, width]"),
    "huge width": (
        changed(infer_request(embeddings(1, WIDTH)), shape=[1, 2**62]),
        "inputs.embeddings",
        f"{2**64} bytes",
    ),
    "truncated floats": (
        with_raw(infer_request(embeddings(1, WIDTH)), bytes(WIDTH * 4 - 1)),
        "inputs.embeddings",
        f"{WIDTH * 4} bytes",
    ),
    "not finite": (
        infer_request(Tensor("embeddings", np.full((1, WIDTH), np.nan, np.float32))),
        "inputs.embeddings[0, 0]",
        "a finite number",
    ),
    "truncated length": (
        with_raw(infer_request(ONE), b"\1\0"),
        "inputs.text[0]",
        "a length and as many bytes",
    ),
    "huge length": (
        with_raw(infer_request(ONE), struct.pack("<I", 2**32 - 1) + b"abc"),
        "inputs.text[0]",
        "a length and as many bytes",
    ),
    "second truncated": (
        with_raw(infer_request(texts("a", "b")), b"\1\0\0\0a\2\0\0\0b"),
        "inputs.text[1]",
        "a length and as many bytes",
    ),
    "too few": (
        changed(infer_request(ONE), shape=[2]),
        "inputs.text",
        "2 elements, as its shape says",
    ),
    "too many": (
        changed(infer_request(texts("a", "b", "c")), shape=[1]),
        "inputs.text",
        "1 elements, as its shape says",
    ),
    "no raw bytes": (with_raw(infer_request(ONE), b""), "inputs.text", "1 elements"),
    "too few typed": (
        changed(infer_request(ONE, is_raw=False), shape=[2]),
        "inputs.text.contents.bytes_contents",
        "2 values",
    ),
    "typed elsewhere": (
        changed(
            infer_request(embeddings(1, WIDTH), is_raw=False),
            contents=pb.InferTensorContents(fp64_contents=[1.0] * WIDTH),
        ),
        "inputs.embeddings.contents.fp32_contents",
        f"{WIDTH} values",
    ),
    "not UTF-8": (with_raw(infer_request(ONE), b"\1\0\0\0\xff"), "inputs.text[0]", "UTF-8"),
    "long text": (
        infer_request(texts("a", "b" * 65_537)),
        "inputs.text[1]",
        "at most 65536 bytes",
    ),
    "raw and typed": (both_raw_and_typed(), "inputs[0].contents", "raw contents alone"),
    "raw of another number": (
        with_raw(infer_request(ONE), b"", b""),
        "raw_input_contents",
        "one for each of 1 inputs",
    ),
    "parameters of an input": (
        changed(infer_request(ONE), parameters={"shared_memory_region": Parameter()}),
        "inputs[0].parameters",
        "none",
    ),
    "unknown parameter": (
        infer_request(ONE, parameters={"priority": Parameter(uint64_param=1)}),
        "parameters",
        "none but k",
    ),
    "k as text": (
        infer_request(ONE, parameters={"k": Parameter(string_param="3")}),
        "parameters.k",
        "int64_param or uint64_param",
    ),
    "k twice": (infer_request(ONE, number([3]), k=3), "k", "an input or a parameter"),
    "k datatype": (
        infer_request(ONE, Tensor("k", np.ones(1, np.float32))),
        "inputs.k.datatype",
        "INT32 or INT64",
    ),
    "k shape": (infer_request(ONE, number([3, 3])), "inputs.k.shape", "[1]"),
    "k of 0": (infer_request(ONE, k=0), "k", "1 to 50"),
    "k above": (infer_request(ONE, k=51), "k", "1 to 50"),
    "k far above": (infer_request(ONE, number([2**62], "int64")), "k", "1 to 50"),
    "k below": (infer_request(ONE, number([-3])), "k", "1 to 50"),
    "unknown output": (
        infer_request(ONE, outputs=wanted("ids", "logits")),
        "outputs[1].name",
        "one of ids, scores, labels, counts",
    ),
    "repeated output": (
        infer_request(ONE, outputs=wanted("ids", "ids")),
        "outputs[1].name",
        "each output once",
    ),
    "sparse shape": (
        infer_request(
            Tensor("indptr", np.array([[0, 0]])),
            Tensor("indices", np.zeros(0, np.int64)),
            Tensor("values", np.zeros(0, np.float32)),
        ),
        "inputs.indptr.shape",
        "one axis",
    ),
    "sparse content": (
        infer_request(
            Tensor("indptr", np.array([0, 1])),
            Tensor("indices", np.array([-1])),
            Tensor("values", np.ones(1, np.float32)),
        ),
        "inputs.indices[0]",
        "0 to ",
    ),
}


@pytest.mark.parametrize(("request_", "field", "expected"), WRONG.values(), ids=WRONG)
def test_each_wrong_value_is_refused_by_the_name_that_the_caller_knows(
    retriever: Retriever, request_: pb.ModelInferRequest, field: str, expected: str
) -> None:
    with pytest.raises(InvalidQueryError) as caught:
        read_request(request_, retriever, config())
    error = in_terms_of_tensors(caught.value)
    assert isinstance(error, InvalidQueryError)
    assert (error.field, error.expected[: len(expected)]) == (field, expected)
    assert str(error).startswith(f"{field}: expected {error.expected}, got {error.actual}")


def test_parameters_of_an_output_are_refused(retriever: Retriever) -> None:
    [output] = wanted("ids")
    output.parameters["classification"].int64_param = 2
    with pytest.raises(InvalidQueryError, match=r"outputs\.ids\.parameters: expected none"):
        read(retriever, ONE, outputs=[output])


@pytest.mark.parametrize("shape", [(2**62,), (2**62, 1)])
def test_a_declared_number_of_queries_is_not_believed(
    retriever: Retriever, shape: tuple[int, ...]
) -> None:
    request = changed(infer_request(ONE), shape=shape)
    with pytest.raises(RequestTooLargeError, match="at most 1024 queries a call"):
        read_request(request, retriever, config())


@pytest.mark.parametrize("names", [(), ("labels",)], ids=["all", "labels"])
def test_an_answer_above_the_message_limit_is_refused_before_it_is_made(
    retriever: Retriever, names: tuple[str, ...]
) -> None:
    many = texts(*["x"] * 100)
    limits = config(max_message_bytes=60_000)
    read_request(infer_request(many, k=10, outputs=wanted(*names)), retriever, limits)
    with pytest.raises(RequestTooLargeError, match="an answer of at most 60000 bytes"):
        read_request(infer_request(many, k=50, outputs=wanted(*names)), retriever, limits)
    read_request(infer_request(many, k=50, outputs=wanted("scores")), retriever, limits)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["text", "embeddings", "indptr", "k", "other"]),
    datatype=st.sampled_from(["BYTES", "FP32", "INT32", "INT64", "", "FP16"]),
    shape=st.lists(st.sampled_from([-1, 0, 1, 2, WIDTH, 2**31, 2**62]), max_size=3),
    raw=st.binary(max_size=80),
    beside=st.booleans(),
)
def test_whatever_comes_is_read_or_refused_as_wrong(
    retriever: Retriever,
    name: str,
    datatype: str,
    shape: list[int],
    raw: bytes,
    beside: bool,
) -> None:
    request = infer_request(ONE) if beside else infer_request()
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)
    # Any other error would reach the caller as one of the server's own.
    with suppress(InvalidInputError):
        assert len(read_request(request, retriever, config()).queries) >= 1
