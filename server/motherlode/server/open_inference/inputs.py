"""Between the inputs of ModelInfer and queries, of every kind that a model takes, and k."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from motherlode.core.queries import DenseQueries, EmbeddingQueries, Queries, SparseQueries
from motherlode.core.retriever import Retriever
from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.config import ServerConfig
from motherlode.server.limits import (
    check_k,
    check_num_queries,
    check_texts,
    fail,
    largest_k,
)
from motherlode.server.open_inference.tensors import InputTensor, TensorSpec

USUAL_K = 10
K = "k"

# Asks how a stream is to end, which changes nothing here; perf_analyzer sets it in every request.
_HARMLESS = "triton_enable_empty_final_response"

# The inputs that make up each kind of query. B is free, F and D are the model's.
_INPUTS = {
    "text": ("text",),
    "sparse": ("indptr", "indices", "values"),
    "features": ("features",),
    "embeddings": ("embeddings",),
}


def input_specs(retriever: Retriever) -> list[TensorSpec]:
    """All inputs that a model takes, those of its usual kind of query first and `k` last."""
    widths = {"features": retriever.num_features, "embeddings": retriever.width}
    specs = [
        TensorSpec(name, _input_datatype(name), (-1, widths[name]) if name in widths else (-1,))
        for kind in retriever.query_kinds
        for name in _INPUTS[kind]
    ]
    return [*specs, TensorSpec(K, "INT32", (1,))]


def read_queries(
    inputs: Mapping[str, InputTensor], retriever: Retriever, config: ServerConfig
) -> Queries:
    """The queries that these inputs, which are all but k, make up.

    Raises:
        InvalidQueryError: If they are not those of one kind that the model takes, or not well
            formed.
        RequestTooLargeError: If there are too many queries.
    """
    return _READERS[_kind_of(inputs, retriever)](inputs, retriever, config)


def read_k(
    request: pb.ModelInferRequest,
    tensor: InputTensor | None,
    retriever: Retriever,
    config: ServerConfig,
) -> int:
    """Hits wanted per query, by the input or the parameter k; by neither, the usual number.

    Raises:
        InvalidQueryError: If it is wrong or there twice, or there is another parameter.
    """
    for name in request.parameters:
        if name not in {K, _HARMLESS}:
            fail("parameters", f"none but {K}", name)
    if K in request.parameters and tensor is not None:
        fail(K, "an input or a parameter", "both")
    if K in request.parameters:
        k = _k_of_parameter(request.parameters[K])
    elif tensor is not None:
        k = _k_of_tensor(tensor)
    else:
        return min(USUAL_K, largest_k(retriever, config))
    check_k(k, retriever, config)
    return k


def _k_of_parameter(parameter: pb.InferParameter) -> int:
    match parameter.WhichOneof("parameter_choice"):
        case "int64_param":
            return int(parameter.int64_param)
        case "uint64_param":
            return int(parameter.uint64_param)
        case choice:
            return fail(f"parameters.{K}", "int64_param or uint64_param", choice)


def _k_of_tensor(tensor: InputTensor) -> int:
    if tensor.shape not in {(1,), (1, 1)}:
        fail(f"{tensor.field}.shape", "[1]", list(tensor.shape))
    return int(tensor.array(["INT32", "INT64"]).item())


def _kind_of(inputs: Mapping[str, InputTensor], retriever: Retriever) -> str:
    """The one kind of query that these inputs, and no others, make up."""
    kinds = retriever.query_kinds
    known = {name for kind in kinds for name in _INPUTS[kind]}
    for name in inputs:
        if name not in known:
            fail("inputs", f"names of {', '.join([*sorted(known), K])}", name)
    for kind in kinds:
        if inputs.keys() == set(_INPUTS[kind]):
            return kind
    choices = " or ".join(" with ".join(_INPUTS[kind]) for kind in kinds)
    return fail("inputs", choices, ", ".join(inputs) or "none of them")


def _read_text(inputs: Mapping[str, InputTensor], _: Retriever, config: ServerConfig) -> Queries:
    tensor = inputs["text"]
    shape = tensor.shape
    if len(shape) not in {1, 2} or shape[1:] not in {(), (1,)}:
        fail(f"{tensor.field}.shape", "[queries] or [queries, 1]", list(shape))
    check_num_queries(shape[0], config)
    return check_texts(tensor.texts(config.max_text_bytes), config)


def _read_sparse(
    inputs: Mapping[str, InputTensor], retriever: Retriever, config: ServerConfig
) -> Queries:
    for tensor in inputs.values():
        if len(tensor.shape) != 1:
            fail(f"{tensor.field}.shape", "one axis", list(tensor.shape))
    check_num_queries(inputs["indptr"].shape[0] - 1, config)
    return SparseQueries(
        inputs["indptr"].array(["INT64"]),
        inputs["indices"].array(["INT64"]),
        inputs["values"].array(["FP32"]),
        retriever.num_features,
    )


def _read_features(
    inputs: Mapping[str, InputTensor], _: Retriever, config: ServerConfig
) -> Queries:
    return DenseQueries(_read_matrix(inputs["features"], config))


def _read_embeddings(
    inputs: Mapping[str, InputTensor], _: Retriever, config: ServerConfig
) -> Queries:
    return EmbeddingQueries(_read_matrix(inputs["embeddings"], config))


def _read_matrix(tensor: InputTensor, config: ServerConfig) -> NDArray[Any]:
    if len(tensor.shape) != 2:
        fail(f"{tensor.field}.shape", "[queries, width]", list(tensor.shape))
    check_num_queries(tensor.shape[0], config)
    return tensor.array(["FP32"])


_Reader = Callable[[Mapping[str, InputTensor], Retriever, ServerConfig], Queries]

_READERS: dict[str, _Reader] = {
    "text": _read_text,
    "sparse": _read_sparse,
    "features": _read_features,
    "embeddings": _read_embeddings,
}


def _input_datatype(name: str) -> str:
    match name:
        case "text":
            return "BYTES"
        case "indptr" | "indices":
            return "INT64"
    return "FP32"
