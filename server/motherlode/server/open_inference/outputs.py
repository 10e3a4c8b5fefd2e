"""Between hits and the outputs of ModelInfer.

An answer of `core` is ragged and a tensor is not, so rows are padded to k here: with the id -1, the
score -inf and an empty key. `counts` says how many hits of a row are real.

Shapes: B queries, K hits asked for, N hits in all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from motherlode.core.labels import LabelTable
from motherlode.core.retriever import Retriever
from motherlode.core.topk import TopK
from motherlode.inference import open_inference_pb2 as pb
from motherlode.server.config import ServerConfig
from motherlode.server.limits import check_answer_size, fail
from motherlode.server.open_inference.tensors import TensorSpec, write_output

OUTPUTS = ("ids", "scores", "labels", "counts")

_DATATYPES = {"ids": "INT64", "scores": "FP32", "labels": "BYTES", "counts": "INT32"}
_NO_ID = -1
_NO_SCORE = -np.inf
_NO_KEY = ""

# Most bytes of one element, raw or typed: the padding -1 takes ten as a typed int64. Of `labels`
# without the key.
_ELEMENT_BYTES = {"ids": 10, "scores": 4, "labels": 5, "counts": 5}
# Of an answer without elements: names, shapes, digest.
_FIXED_RESPONSE_BYTES = 512


def output_specs() -> list[TensorSpec]:
    """All outputs of every model."""
    return [
        TensorSpec(name, _DATATYPES[name], (-1,) if name == "counts" else (-1, -1))
        for name in OUTPUTS
    ]


def check_outputs(request: pb.ModelInferRequest) -> None:
    """Refuses outputs that do not exist, repeated ones, and parameters of outputs.

    Raises:
        InvalidQueryError: If there are any.
    """
    names = [output.name for output in request.outputs]
    for i, output in enumerate(request.outputs):
        if output.name not in OUTPUTS:
            fail(f"outputs[{i}].name", f"one of {', '.join(OUTPUTS)}", output.name)
        if output.name in names[:i]:
            fail(f"outputs[{i}].name", "each output once", output.name)
        if output.parameters:
            fail(f"outputs.{output.name}.parameters", "none", sorted(output.parameters))


def _names_of_outputs(request: pb.ModelInferRequest) -> list[str]:
    return [output.name for output in request.outputs] or list(OUTPUTS)


def check_outputs_size(
    request: pb.ModelInferRequest,
    num_queries: int,
    k: int,
    retriever: Retriever,
    config: ServerConfig,
) -> None:
    """Refuses at once what would be found too large after the work is done.

    Raises:
        RequestTooLargeError: If so.
    """
    names = _names_of_outputs(request)
    row_bytes = sum(_ELEMENT_BYTES[name] * (1 if name == "counts" else k) for name in names)
    if "labels" in names:
        row_bytes += int(k * retriever.labels.keys.mean_bytes)
    check_answer_size(_FIXED_RESPONSE_BYTES + num_queries * row_bytes, config)


def write_outputs(
    request: pb.ModelInferRequest,
    response: pb.ModelInferResponse,
    top: TopK,
    k: int,
    labels: LabelTable,
) -> None:
    """Adds the outputs wanted to a response: raw where the request was, else typed."""
    is_raw = bool(request.raw_input_contents)
    for name in _names_of_outputs(request):
        shape = (len(top),) if name == "counts" else (len(top), k)
        spec = TensorSpec(name, _DATATYPES[name], shape)
        write_output(response, spec, _values(name, top, k, labels), is_raw=is_raw)


def _values(name: str, top: TopK, k: int, labels: LabelTable) -> NDArray[Any] | list[str]:
    match name:
        case "ids":
            return _padded(top.labels, top, k, _NO_ID)
        case "scores":
            return _padded(top.scores, top, k, _NO_SCORE)
        case "labels":
            keys = np.array(labels.keys_of(top.labels), np.object_)
            padded: list[str] = _padded(keys, top, k, _NO_KEY).ravel().tolist()
            return padded
    return top.counts


def _padded(values_N: NDArray[Any], top: TopK, k: int, filling: object) -> NDArray[Any]:
    """The hits as rows of k: [B, K]."""
    if len(values_N) == len(top) * k:
        return values_N.reshape(len(top), k)
    rows_BK = np.full((len(top), k), filling, values_N.dtype)
    rows_BK[np.arange(k) < top.counts[:, None]] = values_N
    return rows_BK
